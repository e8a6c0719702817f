"""What the audit decides without a shop: which message overtook which, which order fits which payment."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from eshop.audit import claims, histories, outboxes
from eshop.audit.answers import Answer
from eshop.audit.broker import Record
from eshop.audit.databases import outer_merge
from eshop.audit.findings import EXAMPLES_MAX, INVARIANTS, Findings, Report
from eshop.audit.messages import FirstOccurrences
from eshop.audit.outcomes import judge
from eshop.contracts.services import AUDITED


def record(offset: int, user_id: bytes) -> Record:
    """Return a message of a user."""
    return Record(TopicPartition("orders", 0), offset, None, "", user_id, b"", 0)


def overtaken(*seen: tuple[int, int, int | None]) -> list[int]:
    """Play a partition of one user: (offset, number in the outbox, marked offset); return who was late."""
    order = FirstOccurrences()
    late = []
    for offset, number, marked in seen:
        row = {"outbox_id": number, "at": marked}
        if order.overtaker(record(offset, b"ann"), row) is not None:
            late.append(number)
    return late


@pytest.mark.parametrize(
    ("what", "seen", "late"),
    [
        ("in order", [(0, 1, 0), (1, 2, 1), (2, 5, 2)], []),
        ("overtaken", [(0, 2, 0), (1, 1, 1)], [1]),
        ("a batch that was published twice", [(0, 1, 2), (1, 2, 3), (2, 1, 2), (3, 2, 3)], []),
        ("published twice, by a zombie the second time", [(0, 1, 0), (1, 2, 1), (2, 1, 0), (3, 2, 1)], []),
        ("published three times", [(0, 1, 4), (1, 2, 5), (2, 1, 4), (3, 2, 5), (4, 1, 4), (5, 2, 5)], []),
        ("not marked yet", [(0, 1, 0), (1, 2, None), (2, 3, None), (3, 2, None)], []),
        ("overtaken before it is marked", [(0, 2, 0), (1, 1, None)], [1]),
        ("overtaken by a first attempt", [(0, 2, 3), (1, 1, 2), (2, 1, 2), (3, 2, 3)], [1]),
        ("its first place is gone from the log", [(7, 3, 7), (8, 1, 2)], []),
    ],
)
def test_only_first_occurrences_can_be_late(
    what: str, seen: Sequence[tuple[int, int, int | None]], late: list[int]
) -> None:
    assert overtaken(*seen) == late, what


def test_users_do_not_wait_for_each_other() -> None:
    order = FirstOccurrences()
    for offset, (user, number) in enumerate([(b"ann", 5), (b"bob", 1), (b"ann", 6), (b"bob", 2)]):
        row = {"outbox_id": number, "at": offset}
        assert order.overtaker(record(offset, user), row) is None


def test_what_was_published_early_is_forgotten_once_it_is_marked() -> None:
    order = FirstOccurrences()
    for offset in range(1_000):
        order.overtaker(record(offset, b"ann"), {"outbox_id": offset, "at": offset})
        order.overtaker(record(offset, b"bob"), {"outbox_id": 2_000 + offset, "at": 5_000})
    for offset in range(1_000):
        row = {"outbox_id": 2_000 + offset, "at": 5_000}
        order.overtaker(record(5_000, b"bob"), row)
    assert not order.early


def test_merge_shows_every_id_once_with_what_each_side_has() -> None:
    merged = outer_merge(iter([("a",), ("c",)]), iter([("b",), ("c",)]), iter([("a",), ("d",)]))
    assert list(merged) == [
        (("a",), None, ("a",)),
        (None, ("b",), None),
        (("c",), ("c",), None),
        (None, None, ("d",)),
    ]


def order(status: str, **changes: Any) -> Any:
    """Return ann's order as orders has it."""
    return SimpleNamespace(
        **{"user_id": "ann", "amount_minor": 5, "currency": "USD", "status": status, **changes}
    )


def payment(status: str | None, captures: int = 0, refunds: int = 0, **changes: Any) -> Any:
    """Return ann's payment as payments has it, with the transfers beside it."""
    row = {
        "user_id": "ann",
        "amount_minor": 5,
        "currency": "USD",
        "status": status,
        "captures": captures,
        "refunds": refunds,
        "captured_minor": -5 * captures,
        "refunded_minor": 5 * refunds,
        "moved_for": "ann" if captures else None,
    }
    return SimpleNamespace(**{**row, **changes})


PAID, REFUNDED, REFUSED = payment("CAPTURED", 1), payment("REFUNDED", 1, 1), payment("REFUSED")
NEW, FINISHED, CANCELLED = order("NEW"), order("FINISHED"), order("CANCELLED")


@pytest.mark.parametrize(
    ("before", "decided", "after", "broken"),
    [
        (NEW, None, NEW, None),
        (NEW, PAID, NEW, None),
        (NEW, PAID, FINISHED, None),
        (None, PAID, NEW, None),
        (FINISHED, PAID, FINISHED, None),
        (FINISHED, PAID, CANCELLED, None),
        (CANCELLED, REFUNDED, CANCELLED, None),
        (CANCELLED, REFUSED, CANCELLED, None),
        (CANCELLED, payment("REFUSED", amount_minor=None, currency=None), CANCELLED, None),
        (FINISHED, None, FINISHED, "3"),
        (FINISHED, REFUSED, FINISHED, "3"),
        (FINISHED, REFUNDED, FINISHED, "3"),
        (CANCELLED, None, CANCELLED, "3"),
        (CANCELLED, PAID, CANCELLED, "3"),
        (FINISHED, payment("CAPTURED", 2), FINISHED, "3"),
        (FINISHED, payment("CAPTURED", 1, 1), FINISHED, "3"),
        (FINISHED, payment("CAPTURED", 1, captured_minor=-4), FINISHED, "3"),
        (FINISHED, payment("CAPTURED", 1, moved_for="bob"), FINISHED, "3"),
        (CANCELLED, payment("REFUNDED", 1, 1, refunded_minor=4), CANCELLED, "3"),
        (CANCELLED, payment("REFUSED", 1), CANCELLED, "3"),
        (FINISHED, PAID, order("FINISHED", amount_minor=4), "3"),
        (FINISHED, PAID, order("FINISHED", currency="EUR"), "3"),
        (FINISHED, PAID, order("FINISHED", user_id="bob"), "3"),
        (NEW, payment(None, 1, user_id=None), NEW, "3"),
        (None, PAID, None, "4"),
        (None, REFUSED, None, "4"),
        (NEW, None, None, "4"),
    ],
)
def test_every_pair_of_order_and_payment_is_judged(
    before: Any, decided: Any, after: Any, broken: str | None
) -> None:
    found = judge(before, decided, after)
    assert (None if found is None else found[0]) == broken


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[]",
        "null",
        "no JSON",
        '{"status": 201, "user_id": "ann", "order_id": null}',
        '{"status": "made"}',
    ],
)
def test_line_that_is_no_answer_is_refused(line: str) -> None:
    with pytest.raises((ValueError, LookupError, TypeError, AttributeError)):
        Answer.parse(line)


def test_report_counts_all_and_names_the_first() -> None:
    findings = Findings()
    for number in range(EXAMPLES_MAX + 5):
        findings.add("3", {"order": number}, orders="FINISHED", payments=None)
    findings.add("L4", {"dead letter": 1})
    told = json.loads(json.dumps(Report(findings, 0.1).as_json()))
    third, parked = (next(one for one in told["invariants"] if one["id"] == id_) for id_ in ("3", "L4"))
    assert (told["ok"], third["broken"], len(third["examples"])) == (False, EXAMPLES_MAX + 5, EXAMPLES_MAX)
    assert third["examples"][0] == {
        "about": {"order": "0"},
        "saw": {"orders": "FINISHED", "payments": "nothing"},
    }
    assert (parked["warning"], parked["broken"]) == (True, 1)


def test_warning_breaks_nothing() -> None:
    findings = Findings()
    findings.add("L4", {"dead letter": 1})
    assert findings.ok()
    assert [invariant.id for invariant in INVARIANTS if invariant.is_warning] == ["L4"]


def test_guarantee_names_every_invariant() -> None:
    text = (Path(__file__).parents[2] / "docs" / "guarantee.md").read_text()
    for invariant in INVARIANTS:
        assert f"| {invariant.id} | {invariant.holds}" in text


def test_audit_knows_the_tables_and_results_of_each_service_that_it_judges() -> None:
    names = {service.name for service in AUDITED}
    assert set(histories._FEEDS) == set(outboxes._ENTRIES) == set(claims._STATUS_OF) == names
    read = {topic.name for service in AUDITED for topic in service.reads}
    assert read == {service.events.name for service in AUDITED}
