"""Sums over all users of a worker's partitions: in memory only, derived anew at each assignment.

An entry that changes is taken out with its old value and put in with its new one, so the sums are those of
the entries, whatever order and however often events came.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from eshop.tables.entry import WINDOW_MINUTES, Minute, UserEntry

Report = Mapping[str, Any]


class Totals:
    """Running sums and the window of the last WINDOW_MINUTES by the newest event's time."""

    def __init__(self, entries: Iterable[UserEntry] = ()) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._minutes: dict[int, Counter[tuple[str, str]]] = {}
        self._oldest_minute = 0
        for entry in entries:
            self._apply(entry, 1)

    def replace(self, old: UserEntry | None, new: UserEntry) -> None:
        """Take the user's old entry out and the new one in. ``old`` is None for a new user."""
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
                named[name][part] = count
        return named

    def window(self) -> Report:
        """Return what happened by minute, oldest first; a minute in which nothing did is not there."""
        return {
            _iso(minute): {
                "created": counts["created", ""],
                "finished": counts["finished", ""],
                "cancelled": counts["cancelled", ""],
                "turnover_minor": {part: n for (name, part), n in counts.items() if name == "turnover" and n},
            }
            for minute, counts in sorted(self._minutes.items())
            if any(counts.values())
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
            self._forget_before(minute.minute - WINDOW_MINUTES + 1)
        counts["created", ""] += sign * minute.created
        counts["finished", ""] += sign * minute.finished
        counts["cancelled", ""] += sign * minute.cancelled
        for currency, amount in minute.turnover_minor.items():
            counts["turnover", currency] += sign * amount

    def _forget_before(self, oldest: int) -> None:
        if oldest > self._oldest_minute:
            self._oldest_minute = oldest
            self._minutes = {at: counts for at, counts in self._minutes.items() if at >= oldest}


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
    return datetime.fromtimestamp(minute * 60, UTC).strftime("%Y-%m-%dT%H:%MZ")


def add_reports(reports: Iterable[Report]) -> dict[str, Any]:
    """Add numbers of the same name, at every depth: several workers' reports become one."""
    total: dict[str, Any] = {}
    for report in reports:
        for name, value in report.items():
            if isinstance(value, Mapping):
                total[name] = add_reports([total.get(name, {}), value])
            else:
                total[name] = total.get(name, 0) + value
    return total


def newest_minutes(window: Report) -> dict[str, Any]:
    """Keep the last WINDOW_MINUTES before the newest minute: workers' windows may end at different ones."""
    if not window:
        return {}
    newest = datetime.strptime(max(window), "%Y-%m-%dT%H:%MZ").replace(tzinfo=UTC)
    oldest = _iso(int(newest.timestamp()) // 60 - WINDOW_MINUTES + 1)
    return {minute: window[minute] for minute in sorted(window) if minute >= oldest}
