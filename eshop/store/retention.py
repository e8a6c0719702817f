"""Retention: deletes expired rows in bulk, a bounded share at a time.

Each table has an index on the time from which its rows age, and a position: the time up to which rows are
deleted. A pass continues at the position, so it reads the rows that it deletes, and no dead row that an old
snapshot keeps from vacuum.

The database's clock may be wrong. So the position advances, in the rows' own times, by at most twice the time
since this process last looked, by its monotonic clock; and only if no other process moved the position
meanwhile. Rows with a time before the position (the clock was behind) are kept.

See docs/adr/0019-tables-that-grow-old.md.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from prometheus_client import Counter, Gauge

from eshop.store.database import Database, Session

logger = logging.getLogger(__name__)

#: Days for which rows are kept. An inbox row must outlive its message on the topic (7 days). An outbox row
#: lives, counted from ``sent_at``, until no topic can lose the message; a result while clients may retry; a
#: dead letter without an end, unless it was replayed or discarded.
KEPT_DAYS = {"outbox": 8, "inbox": 15, "requests": 7, "dead_letters": 30}
_TIMES = {
    "outbox": "sent_at",
    "inbox": "received_at",
    "requests": "created_at",
    "dead_letters": "resolved_at",
}
#: Rows of a table that one transaction deletes.
ROWS_MAX = 5_000
#: A table's pass ends after this time; the next pass continues.
PASS_SECONDS_MAX = 60.0
#: The share of a pass, in terms of new rows meanwhile: all of them, and as much of a backlog.
SHARE_MAX = 2.0

_removed = Counter("eshop_retention_removed_total", "Rows removed after their time", ["table"])
_failures = Counter("eshop_retention_failures_total", "Passes over a table that failed", ["table"])
_overdue = Gauge("eshop_retention_overdue_seconds", "How long the oldest row is past its time", ["table"])

_LOOK = "SELECT removed_until::text, removals FROM retention WHERE table_name = %(table)s"
_MINE = _LOOK + " AND removals = %(removals)s FOR UPDATE"
#: Rows begin at the oldest row: skipping a time without rows loses nothing.
_PLAN = """
SELECT (least(expired_at, oldest + make_interval(secs => %(seconds)s)))::text AS until,
    extract(epoch FROM greatest(expired_at - oldest, interval '0'))::float AS overdue_seconds
FROM (SELECT now() - make_interval(days => %(days)s) AS expired_at,
    (SELECT min({time}) FROM {table} WHERE {time} >= %(since)s::timestamptz) AS oldest) AS found
WHERE oldest IS NOT NULL
"""
_REMOVE = """
WITH gone AS (
    DELETE FROM {table} WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM {table}
        WHERE {time} >= %(since)s::timestamptz AND {time} < %(until)s::timestamptz
        ORDER BY {time} LIMIT %(rows)s
    )) RETURNING {time} AS at
)
SELECT count(*) AS removed, max(at)::text AS until FROM gone
"""
_MOVE = """
UPDATE retention SET removed_until = %(until)s::timestamptz, removals = removals + 1
WHERE table_name = %(table)s
"""


@dataclass(frozen=True, slots=True)
class _Look:
    """A position as this process saw it, with the time by its monotonic clock."""

    removals: int
    at: float


class Retention:
    """Removes from a service's database, pass by pass. Any number of processes may do so at once."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._looks: dict[str, _Look] = {}

    async def remove_expired(self) -> None:
        """Do a pass over each table; the first pass only looks. A failing table stops no other table."""
        for table in KEPT_DAYS:
            try:
                await self._pass(table)
            except Exception:
                _failures.labels(table).inc()
                logger.exception("retention of %s failed; the next pass goes on", table)

    async def _pass(self, table: str) -> None:
        now, last = self._clock(), self._looks.get(table)
        (position,) = await self._database.run_alone(lambda session: session.run_sql(_LOOK, {"table": table}))
        removals = position.removals
        self._looks[table] = _Look(removals, now)
        seconds = SHARE_MAX * (now - last.at) if last and last.removals == removals else 0.0
        plan = await self._database.run_alone(
            partial(_plan, table=table, since=position.removed_until, seconds=seconds)
        )
        _overdue.labels(table).set(plan.overdue_seconds if plan else 0.0)
        if not plan or not seconds or not plan.overdue_seconds:
            return
        total = 0
        while True:
            removed = await self._database.transact(
                partial(_remove, table=table, until=plan.until, removals=removals)
            )
            removals += removed > 0
            total += removed
            _removed.labels(table).inc(removed)
            self._looks[table] = _Look(removals, now)
            if removed < ROWS_MAX or self._clock() - now > PASS_SECONDS_MAX:
                break
        logger.info("retention removed %d rows of %s, of those before %s", total, table, plan.until)


async def _plan(session: Session, *, table: str, since: str, seconds: float) -> Any:
    """Return until when rows may be removed, and how overdue the oldest is; None if there is none."""
    given = {"days": KEPT_DAYS[table], "since": since, "seconds": seconds}
    found = await session.run_sql(_PLAN.format(table=table, time=_TIMES[table]), given)
    return found[0] if found else None


async def _remove(session: Session, *, table: str, until: str, removals: int) -> int:
    """Delete rows and move the position, unless another process moved it; return the number of rows."""
    mine = await session.run_sql(_MINE, {"table": table, "removals": removals})
    if not mine:
        return 0
    (gone,) = await session.run_sql(
        removal_sql(table), {"since": mine[0].removed_until, "until": until, "rows": ROWS_MAX}
    )
    if gone.removed:
        await session.run_sql(_MOVE, {"table": table, "until": gone.until})
    return int(gone.removed)


def removal_sql(table: str) -> str:
    """Return the statement that deletes ``rows`` rows with times from ``since`` to before ``until``."""
    return _REMOVE.format(table=table, time=_TIMES[table])
