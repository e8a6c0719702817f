"""The invariants by name, and the findings about each."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

#: Findings of an invariant that are named; the others are counted.
EXAMPLES_MAX = 20


class NotJudged(Exception):
    """No verdict: a database or the broker did not answer, or the client log can't be read."""


@dataclass(frozen=True, slots=True)
class Invariant:
    """An invariant. A warning is shown, and does not fail the audit."""

    id: str
    name: str
    holds: str
    is_warning: bool = False


INVARIANTS = (
    Invariant(
        "1",
        "wallets equal their legs",
        "Each wallet is the sum of its legs, is never below zero, and its history adds up; the legs of a "
        "transfer sum to zero.",
    ),
    Invariant("2", "the total is zero", "Over all accounts of a currency the ledger sums to zero."),
    Invariant(
        "3",
        "paid once or not at all",
        "A FINISHED order has one captured payment of its amount and user and no refund; a CANCELLED one has "
        "no capture, or a capture and its refund.",
    ),
    Invariant(
        "4",
        "nothing from nowhere",
        "Every payment is of an order that exists; every order that a client was told of exists; what was "
        "refused left nothing.",
    ),
    Invariant("5", "one order per key", "An idempotency key has one order, however many retries."),
    Invariant(
        "6",
        "outbox equals topics",
        "Every sent row of an outbox is on its topic where the outbox says, with that content; every message "
        "on a topic is in an outbox, or was parked as a dead letter.",
    ),
    Invariant(
        "7",
        "what was read had its effect",
        "Every message below a watermark is in the inbox, and every inbox row has its result, or is a dead "
        "letter.",
    ),
    Invariant(
        "8",
        "histories are legal",
        "An order's history is a legal path with versions 1, 2, … that ends in the order's state; a "
        "CANCELLED order never changes.",
    ),
    Invariant(
        "9",
        "nothing overtakes",
        "By first occurrence, a user's messages are on a topic in the outbox's order; a user's feed numbers "
        "are 1, 2, … without a gap.",
    ),
    Invariant("10", "watermarks lead", "No watermark is behind the offset that its group has committed."),
    Invariant(
        "11",
        "every change is announced",
        "Every entry of an order's or a wallet's history has one row in its service's outbox, with its feed "
        "number.",
    ),
    Invariant(
        "12",
        "messages move money",
        "Every capture's and every refund's transfer id is the id of a message in payments' inbox; an "
        "operator's refund in payments has the operator's record.",
    ),
    Invariant(
        "13",
        "questions are answered once",
        "Every question that payments has claimed has one answer, with the question's id as its cause.",
    ),
    Invariant(
        "14",
        "users keep their partition",
        "Every message of an outbox is on its topic in the partition that the catalogue's hash gives its "
        "user.",
    ),
    Invariant(
        "L1",
        "orders end",
        "No order is open 60 s after its deadline, or after its cancellation was requested.",
    ),
    Invariant("L2", "outboxes drain", "No message waits in an outbox to be sent."),
    Invariant("L3", "groups keep up", "Consumer groups have no lag, or are catching up."),
    Invariant("L4", "nothing parked", "No dead letter waits for an operator.", is_warning=True),
)
IDS = tuple(invariant.id for invariant in INVARIANTS)


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding: an object that breaks an invariant, and the view of each side."""

    about: dict[str, str]
    saw: dict[str, str]


class Findings:
    """The findings of an audit so far, in bounded memory."""

    def __init__(self) -> None:
        self.broken: Counter[str] = Counter()
        self.examples: dict[str, list[Finding]] = defaultdict(list)
        self.checked: Counter[str] = Counter()
        self.unjudged: Counter[str] = Counter()

    def add(self, invariant: str, about: Mapping[str, object], **saw: object) -> None:
        """Count a finding, and remember it if it is among the first."""
        assert invariant in IDS, invariant
        self.broken[invariant] += 1
        if len(self.examples[invariant]) < EXAMPLES_MAX:
            self.examples[invariant].append(Finding(_texts(about), _texts(saw)))

    def ok(self) -> bool:
        """Tell whether every invariant holds, apart from warnings."""
        return not any(self.broken[invariant.id] for invariant in INVARIANTS if not invariant.is_warning)


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of an audit. ``skipped`` invariants were not judged."""

    findings: Findings
    seconds: float
    skipped: frozenset[str] = frozenset()

    @property
    def ok(self) -> bool:
        """Whether every judged invariant holds."""
        return self.findings.ok()

    def as_json(self) -> dict[str, Any]:
        """Return the report for programs, as `eshop audit --help` tells."""
        return {
            "ok": self.ok,
            "judged": True,
            "checked": dict(self.findings.checked),
            "unjudged": dict(self.findings.unjudged),
            "invariants": [
                {
                    "id": invariant.id,
                    "name": invariant.name,
                    "holds": invariant.holds,
                    "warning": invariant.is_warning,
                    "skipped": invariant.id in self.skipped,
                    "broken": self.findings.broken[invariant.id],
                    "examples": [asdict(finding) for finding in self.findings.examples[invariant.id]],
                }
                for invariant in INVARIANTS
            ],
            "seconds": round(self.seconds, 3),
        }


def _texts(values: Mapping[str, object]) -> dict[str, str]:
    return {name: "nothing" if value is None else str(value) for name, value in values.items()}
