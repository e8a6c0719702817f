"""An event folded into a user's entry: pure, and the same after any redelivery and any crash.

Each service numbers its events of a user without a gap, and a user's events arrive in order. So the number
alone tells a redelivery (not above the last folded number: dropped) from a loss (skipped: counted). Only the
minutes depend on the reader's clock: an event far ahead of it counts in the sums alone.
"""

from dataclasses import dataclass, replace
from enum import Enum

from eshop.contracts.bodies import Body, UnknownEvent
from eshop.contracts.orders_v1 import OrderCancelled, OrderCreated, OrderFinished
from eshop.contracts.payments_v1 import AccountClosed, WalletChanged
from eshop.tables.entry import (
    AHEAD_MINUTES_MAX,
    WINDOW_MINUTES,
    Minute,
    Money,
    UserEntry,
    bounded,
)

OrderChange = OrderCreated | OrderFinished | OrderCancelled

#: An order's version after NEW → FINISHED → CANCELLED; a cancellation with a lower version found the order
#: NEW.
_VERSION_OF_REFUND = 3


class Outcome(Enum):
    """The outcome of folding an event."""

    FOLDED = "folded"
    #: Folded, but numbers before it are missing.
    GAP = "gap"
    #: Already folded: a redelivery, or a relay's repetition.
    DROPPED = "dropped"
    #: Says nothing a projection keeps, and so has no feed number.
    IGNORED = "ignored"
    #: Of a type that only newer versions know.
    UNKNOWN_TYPE = "unknown_type"

    @property
    def changes_nothing(self) -> bool:
        """Whether the event changes nothing in the stored entry."""
        return self in (Outcome.IGNORED, Outcome.UNKNOWN_TYPE)


@dataclass(frozen=True, slots=True)
class Folded:
    """The entry afterwards, and the outcome."""

    entry: UserEntry
    outcome: Outcome
    missed: int = 0


def fold(entry: UserEntry, body: Body, minute: int, now: int) -> Folded:
    """Fold an event of either service that happened in this minute; ``now`` is the reader's minute.

    Minutes count from the epoch.
    """
    match body:
        case OrderCreated() | OrderFinished() | OrderCancelled():
            outcome, missed = _judge(entry.orders_seq, body.feed_number)
            if outcome is Outcome.DROPPED:
                return Folded(entry, outcome)
            return Folded(_fold_order(entry, body, missed, minute, now), outcome, missed)
        case WalletChanged():
            outcome, missed = _judge(entry.wallet_seq, body.feed_number)
            if outcome is Outcome.DROPPED:
                return Folded(entry, outcome)
            return Folded(_fold_wallet(entry, body, missed), outcome, missed)
        case UnknownEvent():
            return Folded(entry, Outcome.UNKNOWN_TYPE)
        case _:
            return Folded(entry, Outcome.IGNORED)


def newest(one: UserEntry, other: UserEntry) -> UserEntry:
    """Return the union of two entries of a user: for each feed the part with the higher number.

    A part depends only on its feed up to its number, so the order of the writes does not matter.
    """
    orders = one if one.orders_seq >= other.orders_seq else other
    wallet = one if one.wallet_seq >= other.wallet_seq else other
    return replace(
        orders,
        wallet_seq=wallet.wallet_seq,
        wallet_missed=wallet.wallet_missed,
        wallet_open=wallet.wallet_open,
        balance_minor=wallet.balance_minor,
    )


def feed_of(body: Body) -> str:
    """Return the feed of the event's number: orders or wallet."""
    return "wallet" if isinstance(body, WalletChanged) else "orders"


def _judge(last_seq: int, feed_number: int) -> tuple[Outcome, int]:
    missed = feed_number - last_seq - 1
    if missed < 0:
        return Outcome.DROPPED, 0
    return (Outcome.GAP if missed else Outcome.FOLDED), missed


def _fold_order(entry: UserEntry, body: OrderChange, missed: int, minute: int, now: int) -> UserEntry:
    new, finished, cancelled, sign = _moves(body)
    turnover: Money = {body.currency: sign * body.amount_minor} if sign else {}
    happened = Minute(
        minute,
        created=isinstance(body, OrderCreated),
        finished=isinstance(body, OrderFinished),
        cancelled=isinstance(body, OrderCancelled),
        turnover_minor=turnover,
    )
    return replace(
        entry,
        orders_seq=body.feed_number,
        orders_missed=entry.orders_missed + missed,
        orders_new=entry.orders_new + new,
        orders_finished=entry.orders_finished + finished,
        orders_cancelled=entry.orders_cancelled + cancelled,
        turnover_minor=add_money(entry.turnover_minor, turnover),
        minutes=_with_minute(entry.minutes, happened, now),
    )


def _moves(body: OrderChange) -> tuple[int, int, int, int]:
    """Return the change of NEW, FINISHED, CANCELLED, and whether turnover comes (1), goes (-1) or stays."""
    match body:
        case OrderCreated():
            return 1, 0, 0, 0
        case OrderFinished():
            return -1, 1, 0, 1
        case OrderCancelled() if body.version >= _VERSION_OF_REFUND:
            return 0, -1, 1, -1
        case OrderCancelled():
            return -1, 0, 1, 0


def _fold_wallet(entry: UserEntry, body: WalletChanged, missed: int) -> UserEntry:
    return replace(
        entry,
        wallet_seq=body.feed_number,
        wallet_missed=entry.wallet_missed + missed,
        wallet_open=not isinstance(body, AccountClosed),
        balance_minor={body.currency: body.balance_minor},
    )


def add_money(one: Money, other: Money) -> Money:
    """Return the sums by currency."""
    if not other:
        return one
    return {
        currency: bounded(one.get(currency, 0) + other.get(currency, 0))
        for currency in sorted({*one, *other})
    }


def add_minutes(one: Minute, other: Minute) -> Minute:
    """Return the sum of two accounts of the same minute."""
    assert one.minute == other.minute
    return Minute(
        one.minute,
        one.created + other.created,
        one.finished + other.finished,
        one.cancelled + other.cancelled,
        add_money(one.turnover_minor, other.turnover_minor),
    )


def _with_minute(minutes: tuple[Minute, ...], happened: Minute, now: int) -> tuple[Minute, ...]:
    """Add to the event's minute; keep the newest WINDOW_MINUTES that the clock has reached, in order."""
    if minutes and minutes[-1].minute == happened.minute <= now + AHEAD_MINUTES_MAX:
        return (*minutes[:-1], add_minutes(minutes[-1], happened))  # most events are of the newest minute
    by_minute: dict[int, Minute] = {known.minute: known for known in minutes}
    known = by_minute.get(happened.minute, Minute(happened.minute))
    by_minute[happened.minute] = add_minutes(known, happened)
    seen = sorted(at for at in by_minute if at <= now + AHEAD_MINUTES_MAX)
    return tuple(by_minute[at] for at in seen if at > seen[-1] - WINDOW_MINUTES)
