"""What a run shows: the table of faults, and whether it has proven anything."""

import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import psutil
from rich.table import Table


@dataclass
class Happened:
    """One fault that was fired, or was to be.

    ``down_seconds``: from the fault's end (for a kill: the kill) until the processes it ended were ready.
    ``recovery_seconds``: from the same moment until an order in every partition, placed when they were back,
    was final. ``began`` and ``ended`` are in seconds since 1970.
    """

    name: str
    began: float
    ended: float = 0.0
    kills: int = 0
    evidence: str = ""
    down_seconds: float | None = None
    served_seconds: float | None = None
    recovery_seconds: float | None = None
    dropped_by_inbox: int = 0
    published_again: int = 0
    is_timed: bool = True
    failure: str = ""


@dataclass
class Report:
    """A whole run."""

    seed: int
    chapter: str = "faults"
    minutes: float = 0.0
    orders: int = 0
    happened: list[Happened] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    clients: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    audit: dict[str, Any] = field(default_factory=dict)

    @property
    def kills(self) -> int:
        """How many processes were killed."""
        return sum(one.kills for one in self.happened)

    def recoveries(self) -> list[float]:
        """Return the seconds to recover that count, in order of size."""
        return sorted(
            one.recovery_seconds for one in self.happened if one.recovery_seconds is not None and one.is_timed
        )

    def judge(self, orders: int, kills: int, recovery_seconds: tuple[float, float]) -> None:
        """Write down everything that keeps this run from proving what it is for."""
        self.failures += [f"{one.name}: {one.failure}" for one in self.happened if one.failure]
        self._want(self.orders >= orders, f"{self.orders} orders, {orders} were wanted")
        self._want(self.kills >= kills, f"{self.kills} kills, {kills} were wanted")
        if seconds := self.recoveries():
            most, all_ = recovery_seconds
            found = share(seconds, 0.95)
            self._want(found <= most, f"95 % of recoveries took up to {found:.1f} s, not {most:.0f} s")
            self._want(seconds[-1] <= all_, f"a recovery took {seconds[-1]:.1f} s, not {all_:.0f} s at most")
        broken = [f"{one['id']} ({one['broken']})" for one in self.broken_invariants()]
        self._want(
            bool(self.audit.get("ok")) and self.audit.get("exit_code") == 0,
            f"the audit is not clean: {', '.join(broken) or self.audit.get('error', 'it did not say why')}",
        )

    def judge_repetitions(self) -> None:
        """Write down if no message came twice: nothing is shown of what keeps it from having two effects."""
        self._want(any(one.dropped_by_inbox for one in self.happened), "no message was ever delivered again")
        self._want(
            bool(self.facts.get("messages published twice")), "no relay ever published a message twice"
        )

    def broken_invariants(self) -> list[dict[str, Any]]:
        """Return what the audit found."""
        return [one for one in self.audit.get("invariants", []) if one["broken"] and not one.get("warning")]

    def _want(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.failures.append(otherwise)

    def as_json(self) -> dict[str, Any]:
        """Return all of it."""
        return asdict(self) | {"ok": not self.failures, "kills": self.kills, "rows": rows(self.happened)}


def share(ordered: Sequence[float], part: float) -> float:
    """Return the value that a part of all do not exceed."""
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def rows(happened: Sequence[Happened]) -> list[dict[str, Any]]:
    """Return the table of faults, one row to a name, the killed ones first."""
    names = sorted({one.name for one in happened}, key=lambda name: (_rank(name), name))
    return [_row(name, [one for one in happened if one.name == name]) for name in names]


def _rank(name: str) -> int:
    starts = ("crash point", "SIGKILL", "SIGTERM", "SIGINT", "SIGQUIT", "SIGSTOP", "network")
    return next((at for at, start in enumerate(starts) if name.startswith(start)), len(starts))


def _row(name: str, all_: list[Happened]) -> dict[str, Any]:
    fired = [one for one in all_ if not one.failure]
    seconds = sorted(one.recovery_seconds for one in all_ if one.recovery_seconds is not None)
    down = sorted(one.down_seconds for one in all_ if one.down_seconds is not None)
    return {
        "fault": name,
        "fired": len(fired),
        "kills": sum(one.kills for one in all_),
        "published_again": sum(one.published_again for one in all_),
        "dropped_by_inbox": sum(one.dropped_by_inbox for one in all_),
        "down_median": share(down, 0.5) if down else None,
        "recovery_median": share(seconds, 0.5) if seconds else None,
        "recovery_95": share(seconds, 0.95) if seconds else None,
        "recovery_max": seconds[-1] if seconds else None,
    }


COLUMNS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("fault", lambda row: str(row["fault"])),
    ("fired", lambda row: str(row["fired"])),
    ("published twice", lambda row: f"{row['published_again']:,}"),
    ("redelivered, dropped by inbox", lambda row: f"{row['dropped_by_inbox']:,}"),
    ("down s", lambda row: _seconds(row["down_median"])),
    ("recovery s: median", lambda row: _seconds(row["recovery_median"])),
    ("95 %", lambda row: _seconds(row["recovery_95"])),
    ("max", lambda row: _seconds(row["recovery_max"])),
)


TO_MAKE = {"outages": " CHAPTER=outages"}
EXPLAINED = (
    "Down: from a kill until the killed processes were ready again. Recovery: from the fault's end, for a"
    " kill from the kill itself, until those processes were back and an order placed then in each partition"
    " of the topics was final. What orders a whole topic to be read again takes as long as that is; it is not"
    " in the last row's times."
)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _all(report: Report) -> dict[str, Any]:
    counted = _row("all", report.happened)
    seconds = report.recoveries()
    if not seconds:
        return counted
    times = {"recovery_median": share(seconds, 0.5), "recovery_95": share(seconds, 0.95)}
    return counted | times | {"recovery_max": seconds[-1]}


def table(report: Report) -> Table:
    """Return the table for a terminal."""
    shown = Table(title=headline(report), title_justify="left")
    for at, (column, _) in enumerate(COLUMNS):
        shown.add_column(column, justify="left" if at == 0 else "right")
    for row in rows(report.happened):
        shown.add_row(*(text(row) for _, text in COLUMNS))
    shown.add_section()
    shown.add_row(*(text(_all(report)) for _, text in COLUMNS))
    return shown


def headline(report: Report) -> str:
    """Return the run in one line."""
    violations = sum(one["broken"] for one in report.broken_invariants())
    return (
        f"seed {report.seed}: {report.orders:,} orders and {report.kills:,} kills"
        f" in {report.minutes:.1f} minutes, {violations} violations,"
        f" {'passed' if not report.failures else 'FAILED'}"
    )


def markdown(report: Report) -> str:
    """Return the table for the docs."""
    lines = [
        f"# The last run of the {report.chapter}",
        "",
        f"Generated by `make faults{TO_MAKE.get(report.chapter, '')}`; not written by hand.",
        "",
        f"{headline(report)}.",
        "",
        f"On {psutil.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}.",
        EXPLAINED,
        "",
        "| " + " | ".join(column for column, _ in COLUMNS) + " |",
        "| --- |" + " ---: |" * (len(COLUMNS) - 1),
    ]
    lines += [
        "| " + " | ".join(text(row) for _, text in COLUMNS) + " |"
        for row in [*rows(report.happened), _all(report)]
    ]
    lines += ["", "What the run saw besides:", ""]
    lines += [f"- {name}: {_words(fact)}" for name, fact in report.facts.items()]
    lines += [f"- clients, {name}: {count:,}" for name, count in sorted(report.clients.items())]
    lines += [f"- left out, {name}: {why}" for name, why in sorted(report.left_out.items())]
    lines += [f"- FAILED: {failure}" for failure in report.failures]
    return "\n".join(lines) + "\n"


def _words(fact: Any) -> str:
    if isinstance(fact, dict):
        return ", ".join(f"{name} {value}" for name, value in fact.items()) or "none"
    return f"{fact:,.1f}" if isinstance(fact, float) else str(fact)
