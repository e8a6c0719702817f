"""Orders against payments: two databases have no common snapshot, so the cut is orders, payments, orders.

Each page of orders has a cut of its own: a judgement is never about more than one order.

"Finished implies captured" is judged on the first two: payments had decided before orders knew. "Payment
implies order" is judged on the last two: orders had made the order before payments decided.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from eshop.audit.databases import Page, Snapshot, outer_merge, parts
from eshop.audit.findings import Findings

#: The number of suspects of a pass that are remembered for a second check; further ones are only counted.
SUSPECTS_MAX = 10_000

_ORDERS = """
SELECT order_id, user_id, amount_minor, currency, status, reason, version
FROM orders WHERE {page} ORDER BY order_id
"""
#: A row per order that payments knows, by payment or by transfer; amounts as the wallet saw them.
_PAYMENTS = """
SELECT order_id, p.user_id, p.amount_minor, p.currency, p.status, p.reason,
    captures, refunds, captured_minor, refunded_minor, moved_for,
    order_id IN (SELECT order_id FROM operator_actions WHERE action = 'refund') AS given_back
FROM (SELECT * FROM payments WHERE {page}) AS p
FULL JOIN (
    SELECT order_id,
        count(*) FILTER (WHERE kind = 'capture') AS captures,
        count(*) FILTER (WHERE kind = 'refund') AS refunds,
        sum(amount_minor) FILTER (WHERE kind = 'capture') AS captured_minor,
        sum(amount_minor) FILTER (WHERE kind = 'refund') AS refunded_minor,
        string_agg(DISTINCT t.user_id, ', ') AS moved_for
    FROM transfers AS t LEFT JOIN legs AS l ON l.transfer_id = t.transfer_id AND l.account = 'wallet'
    WHERE {page} AND order_id IS NOT NULL
    GROUP BY order_id
) AS moved USING (order_id)
ORDER BY order_id
"""
#: How many captures and refunds a payment's status means.
_TRANSFERS = {None: (0, 0), "REFUSED": (0, 0), "CAPTURED": (1, 0), "REFUNDED": (1, 1)}
_MAY_PAY = {"FINISHED": ("CAPTURED",), "CANCELLED": ("REFUSED", "REFUNDED")}
#: Messages about these orders that the other service has not handled: not sent, or sent and not read.
_ANNOUNCED = """
SELECT message_id, body::jsonb ->> 'order_id' AS order_id FROM outbox
WHERE user_id = ANY (%(user_ids)s) AND body::jsonb ->> 'order_id' = ANY (%(order_ids)s)
"""
_ARRIVED = "SELECT message_id FROM inbox WHERE message_id = ANY (%(ids)s::uuid[])"
_PARKED = "SELECT message_id FROM dead_letters WHERE status = 'parked' AND message_id = ANY (%(ids)s::uuid[])"


@dataclass(frozen=True, slots=True)
class Cut:
    """The three snapshots, in the order in which they were taken."""

    orders: Snapshot
    payments: Snapshot
    orders_after: Snapshot


@dataclass(frozen=True, slots=True)
class Suspect:
    """A suspect order with the view of each snapshot: equal views have not moved."""

    order_id: str
    invariant: str
    why: str
    before: Any
    payment: Any
    after: Any

    @property
    def user_id(self) -> str:
        """The user of the order."""
        rows = (self.after, self.before, self.payment)
        known = [row.user_id for row in rows if row is not None and row.user_id is not None]
        return str(known[0] if known else self.payment.moved_for)

    def report(self, findings: Findings) -> None:
        """Add the suspect to the findings."""
        findings.add(
            self.invariant,
            {"order": self.order_id, "user": self.user_id},
            why=self.why,
            orders=_told(self.after or self.before),
            payments=_told(self.payment),
            ledger=_moved(self.payment),
        )


def _told(row: Any) -> str | None:
    if row is None or row.user_id is None:
        return None
    parts = (row.status, row.reason, row.amount_minor, row.currency, f"of {row.user_id}")
    return " ".join(str(part) for part in parts if part is not None)


def _moved(payment: Any) -> str | None:
    if payment is None or payment.captures is None:
        return None
    return (
        f"{payment.captures} capture(s), {payment.captured_minor or 0} on the wallet; "
        f"{payment.refunds} refund(s), {payment.refunded_minor or 0}"
    )


def find_suspects(cut: Cut, page: Page, checked: Counter[str]) -> Iterator[Suspect]:
    """Yield the suspects in the cut of a page of orders, by their ids; count the rows."""
    streams = (
        iter(cut.orders.rows(_ORDERS, page)),
        iter(cut.payments.rows(_PAYMENTS, page)),
        iter(cut.orders_after.rows(_ORDERS, page)),
    )
    for before, payment, after in outer_merge(*streams):
        checked["orders"] += before is not None or after is not None
        checked["payments"] += payment is not None
        found = judge(before, payment, after)
        if found is not None:
            yield Suspect((before or payment or after).order_id, *found, before, payment, after)


def judge(before: Any, payment: Any, after: Any) -> tuple[str, str] | None:
    """Return the invariant that looks broken and the reason, or None."""
    if payment is not None and after is None and not _is_given_back(payment):
        return "4", "payments decided about an order that nobody knows"
    if before is not None and after is None:
        return "4", "the order was there and is gone"
    wrong = _judge_money(payment) or _judge_status(before, payment) or _judge_terms(after, payment)
    return None if wrong is None else ("3", wrong)


def _is_given_back(payment: Any) -> bool:
    """Tell whether an operator had payments refund the capture of a missing order."""
    return bool(payment.status == "REFUNDED" and payment.given_back)


def _judge_money(payment: Any) -> str | None:
    """Compare a payment with its transfers, in one snapshot."""
    if payment is None:
        return None
    moved = (payment.captures or 0, payment.refunds or 0)
    if moved != _TRANSFERS[payment.status]:
        return (
            f"a payment that is {payment.status or 'not there'} has {moved[0]} captures, {moved[1]} refunds"
        )
    if moved[0] and payment.captured_minor != -payment.amount_minor:
        return "another amount was captured"
    if moved[1] and payment.refunded_minor != payment.amount_minor:
        return "another amount was refunded"
    if moved[0] and payment.moved_for != payment.user_id:
        return "another user's money was moved"
    return None


def _judge_status(before: Any, payment: Any) -> str | None:
    """Compare the orders' view with the decisions of payments at the time."""
    if before is None or before.status not in _MAY_PAY:
        return None
    status = None if payment is None else payment.status
    if status not in _MAY_PAY[before.status]:
        return f"the order is {before.status}, its payment is {status or 'not there'}"
    return None


def _judge_terms(after: Any, payment: Any) -> str | None:
    """Compare the decisions of payments with the order."""
    if payment is None or payment.status is None or after is None:
        return None
    if payment.user_id != after.user_id:
        return "the payment is another user's"
    terms = (payment.amount_minor, payment.currency)
    if payment.amount_minor is not None and terms != (after.amount_minor, after.currency):
        return "the payment is of another amount"
    return None


def in_flight(cut: Cut, suspects: list[Suspect]) -> set[str]:
    """Return the orders with an announced message that the other side has not handled."""
    return _between(cut.payments, cut.orders, suspects) | _between(cut.orders_after, cut.payments, suspects)


def _between(sender: Snapshot, receiver: Snapshot, suspects: list[Suspect]) -> set[str]:
    moving: set[str] = set()
    for page in parts(suspects):
        announced = sender.rows(
            _ANNOUNCED,
            user_ids=sorted({suspect.user_id for suspect in page}),
            order_ids=[suspect.order_id for suspect in page],
        )
        ids = [row.message_id for row in announced]
        done = {row.message_id for row in receiver.rows(_ARRIVED, ids=ids)}
        if receiver.has_dead_letters:
            done -= {row.message_id for row in receiver.rows(_PARKED, ids=ids)}
        moving |= {row.order_id for row in announced if row.message_id not in done}
    return moving
