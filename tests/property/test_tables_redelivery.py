"""Is the projection the same whatever is delivered again, and are losses counted, for every sequence?"""

from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from eshop.contracts.orders_v1 import OrderCancelled, OrderCreated, OrderFinished
from eshop.contracts.payments_v1 import AccountToppedUp
from eshop.tables.entry import UserEntry, from_bytes, to_bytes
from eshop.tables.fold import Outcome, fold, newest
from eshop.tables.totals import Totals, add_reports

ORDER_ID = "01890a5d-ac96-774b-bcce-b302099a8057"
PAY_BEFORE = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = 29_000_000
#: After all that happens: the clock has no say.
NOW = MINUTE + 1_000_000

Body = OrderCreated | OrderFinished | OrderCancelled | AccountToppedUp
Happened = tuple[Body, int]

#: The ways of an order: created, finished, cancelled, refunded.
PATHS = ("C", "CF", "CX", "CFR")


def step(kind: str, amount: int, currency: str, feed_number: int) -> Body:
    about: dict[str, Any] = {
        "user_id": "ann",
        "order_id": ORDER_ID,
        "amount_minor": amount,
        "currency": currency,
        "feed_number": feed_number,
    }
    match kind:
        case "C":
            return OrderCreated(**about, version=1, pay_before=PAY_BEFORE)
        case "F":
            return OrderFinished(**about, version=2)
        case "X":
            return OrderCancelled(**about, version=2, reason="timeout")
        case _:
            return OrderCancelled(**about, version=3, reason="refunded")


def top_up(balance: int, feed_number: int) -> Body:
    return AccountToppedUp(
        user_id="ann",
        balance_minor=balance,
        currency="USD",
        version=feed_number,
        feed_number=feed_number,
        transfer_id=ORDER_ID,
        amount_minor=1,
    )


@st.composite
def histories(draw: st.DrawFn) -> list[Happened]:
    """Draw all that happened to a user, in order: orders step by step, interleaved, and top-ups between."""
    orders = draw(
        st.lists(
            st.tuples(st.sampled_from(PATHS), st.integers(1, 9999), st.sampled_from(["USD", "EUR"])),
            max_size=8,
        )
    )
    left = [list(path) for path, _, _ in orders]
    events: list[Happened] = []
    minute, orders_seq, wallet_seq = MINUTE, 0, 0
    while any(left):
        minute += draw(st.integers(-3, 30))
        if draw(st.booleans()):
            wallet_seq += 1
            events.append((top_up(draw(st.integers(0, 999)), wallet_seq), minute))
        chosen = draw(st.sampled_from([number for number, steps in enumerate(left) if steps]))
        orders_seq += 1
        _, amount, currency = orders[chosen]
        events.append((step(left[chosen].pop(0), amount, currency, orders_seq), minute))
    return events


def fold_all(events: list[Happened], entry: UserEntry | None = None) -> UserEntry:
    entry = entry or UserEntry()
    for body, minute in events:
        entry = fold(entry, body, minute, NOW).entry
    return entry


@given(histories(), st.data())
def test_any_redelivery_gives_the_same_entry(events: list[Happened], data: st.DataObject) -> None:
    delivered: list[Happened] = []
    read = 0
    while read < len(events):
        end = data.draw(st.integers(read + 1, len(events)))
        delivered += events[read:end]
        read = end
        if data.draw(st.booleans()):  # the committed offset was behind: from there again
            committed = data.draw(st.integers(0, read))
            delivered += events[committed:read]
    assert fold_all(delivered) == fold_all(events)


@given(histories(), st.data())
def test_a_restart_at_any_point_goes_on_from_what_was_stored(
    events: list[Happened], data: st.DataObject
) -> None:
    stored = data.draw(st.integers(0, len(events)))
    committed = data.draw(st.integers(0, stored))
    kept = from_bytes(to_bytes(fold_all(events[:stored])))
    assert fold_all(events[committed:], kept) == fold_all(events)


@given(histories(), st.data())
def test_every_lost_event_before_a_later_one_is_counted(events: list[Happened], data: st.DataObject) -> None:
    lost = data.draw(st.sets(st.integers(0, max(0, len(events) - 1))))
    entry, gaps = UserEntry(), 0
    for number, (body, minute) in enumerate(events):
        if number not in lost:
            folded = fold(entry, body, minute, NOW)
            entry, gaps = folded.entry, gaps + folded.missed
            assert (folded.outcome is Outcome.GAP) == bool(folded.missed)
    orders = sum(1 for number, (body, _) in enumerate(events) if number not in lost and is_order(body))
    wallet = sum(1 for number, (body, _) in enumerate(events) if number not in lost and not is_order(body))
    assert entry.orders_missed == entry.orders_seq - orders
    assert entry.wallet_missed == entry.wallet_seq - wallet
    assert gaps == entry.orders_missed + entry.wallet_missed


def is_order(body: Body) -> bool:
    return not isinstance(body, AccountToppedUp)


@given(histories())
def test_no_whole_history_is_in_the_red(events: list[Happened]) -> None:
    entry = UserEntry()
    for body, minute in events:
        entry = fold(entry, body, minute, NOW).entry
        assert min(entry.orders_new, entry.orders_finished, entry.orders_cancelled) >= 0
        assert min(entry.turnover_minor.values(), default=0) >= 0
        assert entry.orders_missed == entry.wallet_missed == 0


@given(histories(), st.data())
def test_two_workers_entries_of_a_user_join_in_any_order(events: list[Happened], data: st.DataObject) -> None:
    orders = [event for event in events if is_order(event[0])]
    wallet = [event for event in events if not is_order(event[0])]
    one, other = (
        fold_all(
            orders[: data.draw(st.integers(0, len(orders)))]
            + wallet[: data.draw(st.integers(0, len(wallet)))]
        )
        for _ in range(2)
    )
    joined = newest(one, other)
    assert joined == newest(other, one) == newest(joined, one)
    assert joined == fold_all(
        orders[: max(one.orders_seq, other.orders_seq)] + wallet[: max(one.wallet_seq, other.wallet_seq)]
    )


@given(st.lists(histories(), max_size=4), st.data())
def test_running_totals_are_those_of_the_entries(users: list[list[Happened]], data: st.DataObject) -> None:
    running = Totals()
    entries: dict[int, UserEntry] = {}
    left = [list(events) for events in users]
    while pending := [user for user, events in enumerate(left) if events]:
        user = data.draw(st.sampled_from(pending))
        body, minute = left[user].pop(0)
        old = entries.get(user)
        entries[user] = fold(old or UserEntry(), body, minute, NOW).entry
        running.replace(old, entries[user])
    derived = Totals(entries.values())
    assert numbers(running.sums()) == numbers(derived.sums())
    assert numbers(running.window()) == numbers(derived.window())
    apart = [Totals([entry]) for entry in entries.values()]
    assert numbers(add_reports(part.sums() for part in [Totals(), *apart])) == numbers(derived.sums())


def numbers(report: object, path: str = "") -> dict[str, int]:
    """Return the numbers that are not zero: a sum that came and went is as good as one that never was."""
    if isinstance(report, dict):
        return {
            name: number
            for key, value in report.items()
            for name, number in numbers(value, f"{path}/{key}").items()
        }
    assert isinstance(report, int)
    return {path: report} if report else {}
