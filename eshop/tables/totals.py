"""Sums over all users of a worker's partitions: in memory, derived again at each assignment.

A changed entry is subtracted with its old value and added with its new value, so the sums are always the sums
of the entries. A window leaves out events ahead of the clock until their time: an event of next year must not
hide everything before it.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from eshop.tables.entry import WINDOW_MINUTES, Minute, UserEntry, bounded

Report = Mapping[str, Any]

_MINUTE = "%Y-%m-%dT%H:%MZ"


class Totals:
    """Running sums, and the window of WINDOW_MINUTES up to the newest event not ahead of the clock."""

    def __init__(self, entries: Iterable[UserEntry] = (), clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._counts: Counter[tuple[str, str]] = Counter()
        self._minutes: dict[int, Counter[tuple[str, str]]] = {}
        self._oldest_minute = 0
        for entry in entries:
            self._apply(entry, 1)

    def replace(self, old: UserEntry | None, new: UserEntry) -> None:
        """Subtract the user's old entry and add the new one. ``old`` is None for a new user."""
        if old is not None:
            self._apply(old, -1)
        self._apply(new, 1)

    def sums(self) -> Report:
        """Return counts and sums over users; reports of several workers add up by ``add_reports``."""
        named: dict[str, Any] = {
            "users": self._counts["users", ""],
            "accounts": self._counts["accounts", ""],
            "orders": {"NEW": 0, "FINISHED": 0, "CANCELLED": 0},
            "turnover_minor": {},
            "balance_minor": {},
            "missed": {"orders": 0, "wallet": 0},
        }
        for (name, part), count in self._counts.items():
            if part:
                named[name][part] = bounded(count)
        return named

    def window(self) -> Report:
        """Return the events by minute, oldest first, without minutes in which nothing happened."""
        now = self._now()
        seen = sorted(
            minute for minute, counts in self._minutes.items() if minute <= now and any(counts.values())
        )
        return {
            _iso(minute): _told(self._minutes[minute])
            for minute in seen
            if minute > seen[-1] - WINDOW_MINUTES
        }

    def _apply(self, entry: UserEntry, sign: int) -> None:
        counts = self._counts
        for key, count in _contributions(entry):
            counts[key] += sign * count
        for minute in entry.minutes:
            self._apply_minute(minute, sign)

    def _apply_minute(self, minute: Minute, sign: int) -> None:
        if minute.minute < self._oldest_minute:
            return
        counts = self._minutes.get(minute.minute)
        if counts is None:
            counts = self._minutes[minute.minute] = Counter()
            if minute.minute <= self._now():
                self._forget_before(minute.minute - WINDOW_MINUTES + 1)
        counts["created", ""] += sign * minute.created
        counts["finished", ""] += sign * minute.finished
        counts["cancelled", ""] += sign * minute.cancelled
        for currency, amount in minute.turnover_minor.items():
            counts["turnover", currency] += sign * amount

    def _now(self) -> int:
        return int(self._clock()) // 60

    def _forget_before(self, oldest: int) -> None:
        if oldest > self._oldest_minute:
            self._oldest_minute = oldest
            self._minutes = {at: counts for at, counts in self._minutes.items() if at >= oldest}


def _told(counts: Counter[tuple[str, str]]) -> Report:
    return {
        "created": counts["created", ""],
        "finished": counts["finished", ""],
        "cancelled": counts["cancelled", ""],
        "turnover_minor": {
            part: bounded(n) for (name, part), n in counts.items() if name == "turnover" and n
        },
    }


def _contributions(entry: UserEntry) -> Iterable[tuple[tuple[str, str], int]]:
    yield ("users", ""), 1
    yield ("orders", "NEW"), entry.orders_new
    yield ("orders", "FINISHED"), entry.orders_finished
    yield ("orders", "CANCELLED"), entry.orders_cancelled
    yield ("missed", "orders"), entry.orders_missed
    yield ("missed", "wallet"), entry.wallet_missed
    for currency, amount in entry.turnover_minor.items():
        yield ("turnover_minor", currency), amount
    if entry.wallet_open:
        yield ("accounts", ""), 1
        for currency, amount in entry.balance_minor.items():
            yield ("balance_minor", currency), amount


def _iso(minute: int) -> str:
    return datetime.fromtimestamp(minute * 60, UTC).strftime(_MINUTE)


def add_reports(reports: Iterable[Report]) -> dict[str, Any]:
    """Add numbers of the same name, at every depth: several workers' reports become one."""
    total: dict[str, Any] = {}
    for report in reports:
        for name, value in report.items():
            if isinstance(value, Mapping):
                total[name] = add_reports([total.get(name, {}), value])
            else:
                total[name] = bounded(total.get(name, 0) + value)
    return total


def newest_minutes(window: Report, now: float) -> dict[str, Any]:
    """Keep the last WINDOW_MINUTES up to the newest minute that is not ahead of ``now``, a Unix time.

    Workers' windows may end at different minutes, and their clocks may differ.
    """
    seen = sorted(minute for minute in window if minute <= _iso(int(now) // 60))
    if not seen:
        return {}
    newest = datetime.strptime(seen[-1], _MINUTE).replace(tzinfo=UTC)
    oldest = _iso(int(newest.timestamp()) // 60 - WINDOW_MINUTES + 1)
    return {minute: window[minute] for minute in seen if minute >= oldest}
