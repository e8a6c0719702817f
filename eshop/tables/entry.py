"""The projections' entry of a user, and its form in the table: JSON for people to read.

A user has a single entry: after SIGKILL between two changelog writes two entries could disagree without an
end.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from eshop.contracts.bodies import INTEGER_MAX
from eshop.stored import from_stored

#: How many minutes, by event time, a user's entry and the window over all users reach back.
WINDOW_MINUTES = 60

#: The largest difference of the clocks of a shop's machines: an event further ahead is in no minute.
AHEAD_MINUTES_MAX = 5

Money = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Minute:
    """The events of a minute: counts, and the change of turnover. ``minute`` counts from the epoch."""

    minute: int
    created: int = 0
    finished: int = 0
    cancelled: int = 0
    turnover_minor: Money = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UserEntry:
    """A user's orders and wallet as far as their feeds were folded.

    ``orders_seq`` and ``wallet_seq`` are the last folded feed numbers, ``…_missed`` the counts of missing
    numbers before them: above zero, the sums can't be trusted.
    """

    orders_seq: int = 0
    orders_missed: int = 0
    orders_new: int = 0
    orders_finished: int = 0
    orders_cancelled: int = 0
    turnover_minor: Money = field(default_factory=dict)
    minutes: tuple[Minute, ...] = ()
    wallet_seq: int = 0
    wallet_missed: int = 0
    wallet_open: bool = False
    balance_minor: Money = field(default_factory=dict)


def bounded(number: int) -> int:
    """Return a sum that JSON can hold: each amount of a message is in bounds, but their sum may not be."""
    return max(-INTEGER_MAX, min(number, INTEGER_MAX))


def to_bytes(entry: UserEntry) -> bytes:
    """Return the entry in its stored form."""
    return orjson.dumps(entry)


def from_bytes(value: bytes) -> UserEntry:
    """Read an entry of ``to_bytes``, also of a newer version: unknown names are dropped.

    Raises TypeError or ValueError for anything else.
    """
    stored: dict[str, Any] = orjson.loads(value)
    stored["minutes"] = tuple(from_stored(Minute, minute) for minute in stored["minutes"])
    return from_stored(UserEntry, stored)


def describe(entry: UserEntry) -> dict[str, Any]:
    """Return the projection of a user for readers."""
    return {
        "orders": {
            "NEW": entry.orders_new,
            "FINISHED": entry.orders_finished,
            "CANCELLED": entry.orders_cancelled,
        },
        "turnover_minor": dict(entry.turnover_minor),
        "balance_minor": dict(entry.balance_minor) if entry.wallet_open else {},
        "feeds": {"orders": entry.orders_seq, "wallet": entry.wallet_seq},
        "missed": {"orders": entry.orders_missed, "wallet": entry.wallet_missed},
    }
