"""Is one event folded right, and are sums those of the entries?"""

from datetime import UTC, datetime

import pytest

from eshop.contracts.bodies import Body
from eshop.contracts.orders_v1 import (
    OrderCancellationRequested,
    OrderCancelled,
    OrderCreated,
    OrderFinished,
)
from eshop.contracts.payments_v1 import AccountClosed, AccountOpened, PaymentCaptured, PaymentRefused
from eshop.tables.entry import WINDOW_MINUTES, UserEntry, describe, from_bytes, to_bytes
from eshop.tables.fold import Outcome, fold
from eshop.tables.totals import Totals, add_reports, newest_minutes

ORDER_ID = "01890a5d-ac96-774b-bcce-b302099a8057"
MINUTE = 29_000_000


def created(feed_seq: int, amount: int = 500) -> OrderCreated:
    return OrderCreated(
        user_id="ann",
        order_id=ORDER_ID,
        amount_minor=amount,
        currency="USD",
        version=1,
        feed_seq=feed_seq,
        pay_before=datetime(2026, 1, 1, tzinfo=UTC),
    )


def finished(feed_seq: int, amount: int = 500) -> OrderFinished:
    return OrderFinished(
        user_id="ann", order_id=ORDER_ID, amount_minor=amount, currency="USD", version=2, feed_seq=feed_seq
    )


def cancelled(feed_seq: int, version: int, amount: int = 500) -> OrderCancelled:
    return OrderCancelled(
        user_id="ann",
        order_id=ORDER_ID,
        amount_minor=amount,
        currency="USD",
        reason="user",
        version=version,
        feed_seq=feed_seq,
    )


def fold_all(*bodies: Body, minute: int = MINUTE) -> UserEntry:
    entry = UserEntry()
    for body in bodies:
        entry = fold(entry, body, minute).entry
    return entry


def test_a_finished_order_is_turnover() -> None:
    entry = fold_all(created(1), created(2, 70), finished(3))
    assert describe(entry)["orders"] == {"NEW": 1, "FINISHED": 1, "CANCELLED": 0}
    assert entry.turnover_minor == {"USD": 500}


def test_a_refund_takes_the_turnover_out_again() -> None:
    entry = fold_all(created(1), finished(2), cancelled(3, version=3))
    assert describe(entry)["orders"] == {"NEW": 0, "FINISHED": 0, "CANCELLED": 1}
    assert entry.turnover_minor == {"USD": 0}


def test_a_cancelled_new_order_never_was_turnover() -> None:
    entry = fold_all(created(1), cancelled(2, version=2))
    assert describe(entry)["orders"] == {"NEW": 0, "FINISHED": 0, "CANCELLED": 1}
    assert entry.turnover_minor == {}


@pytest.mark.parametrize("feed_seq", [1, 2])
def test_a_redelivered_event_changes_nothing(feed_seq: int) -> None:
    entry = fold_all(created(1), created(2))
    assert fold(entry, created(feed_seq), MINUTE + 1) == fold(entry, created(feed_seq), MINUTE)
    assert fold(entry, created(feed_seq), MINUTE).entry is entry
    assert fold(entry, created(feed_seq), MINUTE).outcome is Outcome.DROPPED


def test_numbers_that_never_came_are_counted() -> None:
    folded = fold(fold_all(created(1)), finished(4), MINUTE)
    assert (folded.outcome, folded.missed) == (Outcome.GAP, 2)
    assert describe(folded.entry)["missed"] == {"orders": 2, "wallet": 0}
    assert fold(folded.entry, created(5), MINUTE).entry.orders_missed == 2


@pytest.mark.parametrize(
    "body",
    [
        OrderCancellationRequested(user_id="ann", order_id=ORDER_ID, reason="user"),
        PaymentRefused(user_id="ann", order_id=ORDER_ID, reason="no_account"),
    ],
)
def test_an_event_without_feed_number_is_ignored(body: Body) -> None:
    entry = fold_all(created(1))
    assert fold(entry, body, MINUTE).entry is entry


def test_wallet_and_orders_are_numbered_apart() -> None:
    opened = AccountOpened(user_id="ann", balance_minor=0, currency="USD", version=1, feed_seq=1)
    paid = PaymentCaptured(
        user_id="ann",
        balance_minor=30,
        currency="USD",
        version=2,
        feed_seq=2,
        order_id=ORDER_ID,
        amount_minor=70,
    )
    entry = fold_all(opened, created(1), paid)
    assert describe(entry)["balance_minor"] == {"USD": 30}
    assert describe(entry)["feeds"] == {"orders": 1, "wallet": 2}
    closed = fold_all(
        opened, AccountClosed(user_id="ann", balance_minor=0, currency="USD", version=2, feed_seq=2)
    )
    assert describe(closed)["balance_minor"] == {}
    assert Totals([entry, closed]).sums()["accounts"] == 1


def test_minutes_are_bounded_by_the_users_newest_event() -> None:
    entry = UserEntry()
    for number in range(1, 2 * WINDOW_MINUTES + 1):
        entry = fold(entry, created(number), MINUTE + number).entry
    assert len(entry.minutes) == WINDOW_MINUTES
    assert entry.minutes[-1].minute == MINUTE + 2 * WINDOW_MINUTES
    late = fold(entry, created(2 * WINDOW_MINUTES + 1), MINUTE).entry
    assert late.minutes == entry.minutes
    assert late.orders_new == entry.orders_new + 1


def test_an_entry_is_read_as_it_was_written() -> None:
    entry = fold_all(created(1), finished(2), cancelled(3, version=3))
    assert from_bytes(to_bytes(entry)) == entry


def test_a_window_has_what_happened_and_ends_at_the_newest_minute() -> None:
    totals = Totals()
    totals.replace(None, fold_all(created(1), finished(2)))
    assert totals.window() == {
        "2025-02-19T21:20Z": {"created": 1, "finished": 1, "cancelled": 0, "turnover_minor": {"USD": 500}}
    }
    totals.replace(None, fold_all(created(1), minute=MINUTE + WINDOW_MINUTES))
    assert list(totals.window()) == ["2025-02-19T22:20Z"]


def test_reports_of_workers_add_up() -> None:
    one = Totals([fold_all(created(1))])
    other = Totals([fold_all(created(1), finished(2)), fold_all(created(1))])
    both = Totals([fold_all(created(1)), fold_all(created(1), finished(2)), fold_all(created(1))])
    assert add_reports([one.sums(), other.sums()]) == both.sums()
    assert newest_minutes(add_reports([one.window(), other.window()])) == both.window()
    assert newest_minutes({}) == {}
