"""Is one event folded right, and are sums those of the entries?"""

import time
from datetime import UTC, datetime

import orjson
import pytest

from eshop.contracts.bodies import Body, UnknownEvent
from eshop.contracts.orders_v1 import (
    OrderCancellationRequested,
    OrderCancelled,
    OrderCreated,
    OrderFinished,
)
from eshop.contracts.payments_v1 import AccountClosed, AccountOpened, PaymentCaptured, PaymentRefused
from eshop.tables.entry import WINDOW_MINUTES, Minute, UserEntry, describe, from_bytes, to_bytes
from eshop.tables.fold import Outcome, fold
from eshop.tables.totals import Totals, add_reports, newest_minutes

ORDER_ID = "01890a5d-ac96-774b-bcce-b302099a8057"
MINUTE = 29_000_000
NOW = MINUTE + 2 * WINDOW_MINUTES


def created(feed_number: int, amount: int = 500) -> OrderCreated:
    return OrderCreated(
        user_id="ann",
        order_id=ORDER_ID,
        amount_minor=amount,
        currency="USD",
        version=1,
        feed_number=feed_number,
        pay_before=datetime(2026, 1, 1, tzinfo=UTC),
    )


def finished(feed_number: int, amount: int = 500) -> OrderFinished:
    return OrderFinished(
        user_id="ann",
        order_id=ORDER_ID,
        amount_minor=amount,
        currency="USD",
        version=2,
        feed_number=feed_number,
    )


def cancelled(feed_number: int, version: int, amount: int = 500) -> OrderCancelled:
    return OrderCancelled(
        user_id="ann",
        order_id=ORDER_ID,
        amount_minor=amount,
        currency="USD",
        reason="user",
        version=version,
        feed_number=feed_number,
    )


def fold_all(*bodies: Body, minute: int = MINUTE) -> UserEntry:
    entry = UserEntry()
    for body in bodies:
        entry = fold(entry, body, minute, NOW).entry
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


@pytest.mark.parametrize("feed_number", [1, 2])
def test_a_redelivered_event_changes_nothing(feed_number: int) -> None:
    entry = fold_all(created(1), created(2))
    assert fold(entry, created(feed_number), MINUTE + 1, NOW) == fold(
        entry, created(feed_number), MINUTE, NOW
    )
    assert fold(entry, created(feed_number), MINUTE, NOW).entry is entry
    assert fold(entry, created(feed_number), MINUTE, NOW).outcome is Outcome.DROPPED


def test_numbers_that_never_came_are_counted() -> None:
    folded = fold(fold_all(created(1)), finished(4), MINUTE, NOW)
    assert (folded.outcome, folded.missed) == (Outcome.GAP, 2)
    assert describe(folded.entry)["missed"] == {"orders": 2, "wallet": 0}
    assert fold(folded.entry, created(5), MINUTE, NOW).entry.orders_missed == 2


@pytest.mark.parametrize(
    "body",
    [
        OrderCancellationRequested(user_id="ann", order_id=ORDER_ID, reason="user"),
        PaymentRefused(user_id="ann", order_id=ORDER_ID, reason="no_account"),
    ],
)
def test_an_event_without_feed_number_is_ignored(body: Body) -> None:
    entry = fold_all(created(1))
    assert fold(entry, body, MINUTE, NOW).entry is entry


def test_wallet_and_orders_are_numbered_apart() -> None:
    opened = AccountOpened(user_id="ann", balance_minor=0, currency="USD", version=1, feed_number=1)
    paid = PaymentCaptured(
        user_id="ann",
        balance_minor=30,
        currency="USD",
        version=2,
        feed_number=2,
        order_id=ORDER_ID,
        amount_minor=70,
    )
    entry = fold_all(opened, created(1), paid)
    assert describe(entry)["balance_minor"] == {"USD": 30}
    assert describe(entry)["feeds"] == {"orders": 1, "wallet": 2}
    closed = fold_all(
        opened, AccountClosed(user_id="ann", balance_minor=0, currency="USD", version=2, feed_number=2)
    )
    assert describe(closed)["balance_minor"] == {}
    assert Totals([entry, closed]).sums()["accounts"] == 1


def test_minutes_are_bounded_by_the_users_newest_event() -> None:
    entry = UserEntry()
    for number in range(1, 2 * WINDOW_MINUTES + 1):
        entry = fold(entry, created(number), MINUTE + number, NOW).entry
    assert len(entry.minutes) == WINDOW_MINUTES
    assert entry.minutes[-1].minute == MINUTE + 2 * WINDOW_MINUTES
    late = fold(entry, created(2 * WINDOW_MINUTES + 1), MINUTE, NOW).entry
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
    assert newest_minutes(add_reports([one.window(), other.window()]), time.time()) == both.window()
    assert newest_minutes({}, time.time()) == {}


YEAR_MINUTES = 365 * 24 * 60


def test_an_event_that_is_stamped_ahead_hides_nothing_of_its_user() -> None:
    entry = fold(UserEntry(), created(1), NOW - 1, NOW).entry
    entry = fold(entry, created(2), NOW + YEAR_MINUTES, NOW).entry
    entry = fold(entry, created(3), NOW, NOW).entry
    assert [minute.minute for minute in entry.minutes] == [NOW - 1, NOW]
    assert entry.orders_new == 3


def test_an_entry_that_was_stored_with_an_event_ahead_recovers() -> None:
    stored = UserEntry(orders_seq=1, orders_new=1, minutes=(Minute(NOW + YEAR_MINUTES, created=1),))
    assert [one.minute for one in fold(stored, created(2), NOW, NOW).entry.minutes] == [NOW]


def test_a_window_leaves_out_what_is_ahead_of_its_clock_until_its_time_has_come() -> None:
    clock = iter([NOW, NOW, NOW, NOW + 2, NOW + 2])
    ahead = UserEntry(orders_new=1, minutes=(Minute(NOW + 2, created=1),))
    usual = UserEntry(orders_new=1, minutes=(Minute(NOW, created=1),))
    totals = Totals([ahead, usual], clock=lambda: next(clock) * 60)
    assert len(totals.window()) == 1
    assert len(totals.window()) == 2
    totals.replace(ahead, UserEntry())
    assert len(totals.window()) == 1


def test_a_year_ahead_blinds_no_window() -> None:
    ahead = UserEntry(orders_new=1, minutes=(Minute(NOW + YEAR_MINUTES, created=1),))
    totals = Totals([ahead], clock=lambda: NOW * 60)
    totals.replace(None, UserEntry(orders_new=1, minutes=(Minute(NOW, created=1),)))
    shown = totals.window()
    assert len(shown) == 1
    older = Totals([ahead], clock=lambda: (NOW + YEAR_MINUTES) * 60)  # a worker whose clock is wrong
    assert newest_minutes(add_reports([shown, older.window()]), NOW * 60) == shown


def test_a_type_that_only_newer_versions_know_changes_nothing() -> None:
    entry = fold_all(created(1))
    folded = fold(entry, UnknownEvent(user_id="ann"), MINUTE, NOW)
    assert (folded.entry, folded.outcome) == (entry, Outcome.UNKNOWN_TYPE)


def test_an_entry_of_a_newer_version_is_read_without_what_it_added() -> None:
    entry = fold_all(created(1), finished(2))
    newer = orjson.loads(to_bytes(entry))
    newer["added_later"] = {"x": 1}
    newer["minutes"][0]["added_later"] = 1
    assert from_bytes(orjson.dumps(newer)) == entry
