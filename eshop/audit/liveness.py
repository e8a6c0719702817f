"""What must come to rest by itself: orders end, outboxes drain, groups keep up, no message is parked."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from eshop.audit.broker import Broker, Offsets
from eshop.audit.databases import Database, Snapshot
from eshop.audit.findings import Findings
from eshop.audit.sources import Sources

OVERDUE_SECONDS_MAX = 60
UNSENT_SECONDS_MAX = 10
#: A lag is observed for this time before it counts as stuck: a rebalance takes up to 10 s.
LAG_SECONDS = 12.0
LOOK_SECONDS = 0.5

#: Until a cancellation is requested, `repeat_at` is the order's deadline; then the outbox has the time.
_OVERDUE = """
WITH open AS (
    SELECT order_id, user_id, status, cancellation_reason, repeat_at FROM orders
    WHERE status = 'NEW' OR (cancellation_reason IS NOT NULL AND status = 'FINISHED')
), asked AS (
    SELECT body::jsonb ->> 'order_id' AS order_id, min(created_at) AS since FROM outbox
    WHERE type = 'eshop.orders.OrderCancellationRequested'
        AND body::jsonb ->> 'order_id' IN (
            SELECT order_id::text FROM open WHERE cancellation_reason IS NOT NULL
        )
    GROUP BY 1
)
SELECT open.order_id, user_id, status, coalesce(cancellation_reason, 'nothing') AS cancellation_reason,
    extract(
        epoch FROM now() - CASE WHEN cancellation_reason IS NULL THEN repeat_at ELSE since END
    )::bigint AS late_seconds
FROM open LEFT JOIN asked ON asked.order_id = open.order_id::text
WHERE now() - make_interval(secs => %(seconds)s) > CASE WHEN cancellation_reason IS NULL THEN repeat_at
    ELSE coalesce(since, '-infinity') END
ORDER BY open.order_id
"""
_UNSENT = """
SELECT outbox_id, message_id, user_id, type, extract(epoch FROM now() - created_at)::bigint AS age_seconds
FROM outbox
WHERE sent_at IS NULL AND created_at < now() - make_interval(secs => %(seconds)s)
ORDER BY outbox_id
"""
_PARKED = """
SELECT dead_letter_id, message_id, user_id, order_id, cause, topic, partition, "offset" AS at
FROM dead_letters WHERE status = 'parked' ORDER BY dead_letter_id
"""


#: Partitions in which a group has lag: (committed, end of the log) by (group, topic, partition).
Lags = Mapping[tuple[str, str, int], tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Look:
    """The unfinished work at one moment."""

    findings: Findings
    lags: Lags

    def is_quiet(self) -> bool:
        """Tell whether there is nothing to wait for."""
        return self.findings.ok() and not self.lags


async def settle(sources: Sources, broker: Broker, seconds: float) -> Findings:
    """Wait until all work is finished, or the time is over; return the unfinished rest with dead letters."""
    began = time.monotonic()
    first = look = await _look(sources, broker)
    while not look.is_quiet():
        waited = time.monotonic() - began
        if waited >= seconds and (waited >= LAG_SECONDS or not _stuck(first, look)):
            break
        await asyncio.sleep(LOOK_SECONDS)
        look = await _look(sources, broker)
    for (group, topic, partition), (reached, end) in _stuck(first, look).items():
        place = {"group": group, "place": f"{topic}/{partition}"}
        look.findings.add("L3", place, committed=reached, end_of_log=end)
    return look.findings


async def _look(sources: Sources, broker: Broker) -> Look:
    findings = Findings()
    await asyncio.to_thread(_judge_databases, sources, findings)
    return Look(findings, await _lags(sources, broker))


def _judge_databases(sources: Sources, findings: Findings) -> None:
    with sources.orders() as database, database.snapshot() as orders:
        for row in orders.stream(_OVERDUE, seconds=OVERDUE_SECONDS_MAX):
            findings.add(
                "L1",
                {"order": row.order_id, "user": row.user_id},
                orders=f"{row.status}, asked to end for {row.cancellation_reason}",
                late_seconds=row.late_seconds,
            )
    for connect in (sources.orders, sources.payments):
        with connect() as database, database.snapshot() as snapshot:
            _judge_outbox(snapshot, findings)
            _note_parked(snapshot, findings)


def _judge_outbox(database: Snapshot, findings: Findings) -> None:
    for row in database.stream(_UNSENT, seconds=UNSENT_SECONDS_MAX):
        findings.add(
            "L2",
            {"message": row.message_id, "user": row.user_id},
            outbox=f"number {row.outbox_id} of {database.service}, {row.type}",
            unsent_seconds=row.age_seconds,
        )


def _note_parked(database: Snapshot, findings: Findings) -> None:
    if not database.has_dead_letters:
        return
    for row in database.stream(_PARKED):
        about = {"dead letter": row.dead_letter_id, "order": row.order_id, "user": row.user_id}
        findings.add(
            "L4",
            {name: value for name, value in about.items() if value is not None},
            cause=row.cause,
            came_from=f"{row.topic}/{row.partition}@{row.at}",
        )


async def _lags(sources: Sources, broker: Broker) -> Lags:
    lags = {}
    for group, topic in sources.groups():
        partitions = await broker.partitions([topic])
        committed = await broker.committed(group, partitions)
        starts, ends = await broker.starts(partitions), await broker.ends(partitions)
        for tp in partitions:
            reached = committed.get(tp, starts[tp])
            if reached < ends[tp]:
                lags[group, tp.topic, tp.partition] = (reached, ends[tp])
    return lags


def _stuck(first: Look, last: Look) -> Lags:
    """Return the lags of the first look that have not moved since."""
    return {
        place: (reached, end)
        for place, (reached, end) in last.lags.items()
        if place in first.lags and first.lags[place][0] == reached
    }


def check_watermarks(reader: Database, committed: Offsets, findings: Findings) -> None:
    """Judge 10. ``committed`` was read before: watermarks only grow."""
    with reader.snapshot() as snapshot:
        rows = snapshot.rows(
            "SELECT topic, partition, next_offset FROM watermarks WHERE consumer = %(consumer)s",
            consumer=reader.service,
        )
    stored = {(row.topic, row.partition): row.next_offset for row in rows}
    for tp, offset in committed.items():
        if stored.get((tp.topic, tp.partition), 0) < offset:
            findings.add(
                "10",
                {"consumer": reader.service, "place": f"{tp.topic}/{tp.partition}"},
                watermark=stored.get((tp.topic, tp.partition)),
                committed=offset,
            )
    findings.checked["watermarks"] += len(stored)
