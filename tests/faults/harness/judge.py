"""What a run measures before and after, and what it takes for it to have proven something."""

import asyncio
import json
import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition

from eshop.contracts.services import PROJECTED, PROJECTIONS, SERVICES
from eshop.contracts.topics import ORDERS_EVENTS, PARTITIONS, PAYMENTS_EVENTS
from eshop.kafka.record_batches import tolerate_unreadable
from eshop.settings import DEFAULT_PORTS
from tests.faults.harness.feeds import Listener
from tests.faults.harness.world import World

LIVENESS_SECONDS_MAX = 60.0
AUDIT_SECONDS_MAX = 1_800.0
#: Where a process is "back to where it was": caches and allocators keep something of a busy time.
RSS_TIMES_MAX = 1.5
RSS_MIB_MORE_MAX = 96
#: Two pools of a worker may have grown to their bound since.
CONNECTIONS_MORE_MAX = 30
READ_MAX = 5_000
#: The kinds of processes that the shop is made of, without their dependencies.
OURS = tuple(DEFAULT_PORTS)
STARTS_LOST_MAX = 2
GROUPS = {
    **{name: [topic.name for topic in service.reads] for name, service in SERVICES.items()},
    PROJECTIONS: [topic.name for topic in PROJECTED],
}


@dataclass(frozen=True)
class Usage:
    """Memory by kind of process (the largest of a kind), and connections to Postgres."""

    rss_mib: dict[str, int]
    connections: int

    def grown(self, before: "Usage") -> list[str]:
        """Return what is more than it should be."""
        found = [
            f"{kind} uses {now} MiB, it was {before.rss_mib[kind]} MiB"
            for kind, now in self.rss_mib.items()
            if now > before.rss_mib[kind] * RSS_TIMES_MAX + RSS_MIB_MORE_MAX
        ]
        if self.connections > before.connections + CONNECTIONS_MORE_MAX:
            found.append(f"{self.connections} connections to Postgres, there were {before.connections}")
        return found


async def usage(world: World) -> Usage:
    """Measure now. Postgres is left out: its memory is mostly shared, and bounded by its settings."""
    rss: dict[str, int] = {}
    for record in world.records().values():
        if record.pid and record.kind != "postgres":
            with suppress(psutil.NoSuchProcess):
                size = psutil.Process(record.pid).memory_info().rss // 1024**2
                rss[record.kind] = max(size, rss.get(record.kind, 0))
    sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
    return Usage(rss, await world.number("orders", sql))


async def dropped_by_inbox(world: World) -> int:
    """Return how many times a message came that had had its effect."""
    sql = "SELECT coalesce(sum(redelivered), 0) FROM inbox"
    return sum([await world.number(service, sql) for service in SERVICES])


async def published_again(world: World) -> list[float]:
    """Return when messages were published that were on their topic already, in seconds since 1970."""
    tolerate_unreadable()
    consumer = AIOKafkaConsumer(bootstrap_servers=world.kafka)
    await consumer.start()
    try:
        names = (ORDERS_EVENTS.name, PAYMENTS_EVENTS.name)
        partitions = [TopicPartition(name, number) for name in names for number in range(PARTITIONS)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        return await _repetitions(consumer, ends)
    finally:
        await consumer.stop()


async def _repetitions(consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int]) -> list[float]:
    seen: set[bytes] = set()
    again: list[float] = []
    left = {partition for partition, end in ends.items() if end > 0}
    while left:
        for records in (await consumer.getmany(timeout_ms=500, max_records=READ_MAX)).values():
            for record in records:
                name = dict(record.headers).get("ce_id")
                if name is not None and name in seen:
                    again.append(record.timestamp / 1000)
                elif name is not None:
                    seen.add(name)
        for partition in list(left):
            if await consumer.position(partition) >= ends[partition]:
                left.discard(partition)
    return again


async def until_at_rest(world: World) -> float:
    """Return after how long no order is open, no message unsent, and every process is ready."""
    begun = time.monotonic()
    while left := await _left(world):
        if time.monotonic() - begun > LIVENESS_SECONDS_MAX:
            raise AssertionError(f"not at rest {LIVENESS_SECONDS_MAX:.0f} s after the last fault: {left}")
        await asyncio.sleep(0.2)
    return time.monotonic() - begun


async def _left(world: World) -> str:
    new = await world.number("orders", "SELECT count(*) FROM orders WHERE status = 'NEW'")
    unsent = [
        await world.number(service, "SELECT count(*) FROM outbox WHERE sent_at IS NULL")
        for service in SERVICES
    ]
    lags = await _lags(world)
    away = [name for name, record in world.records().items() if not record.pid or record.state != "ready"]
    if not new and not sum(unsent) and not away and not any(lags.values()):
        return ""
    return (
        f"{new} orders NEW, {unsent} messages unsent, {lags} not read, {', '.join(away) or 'none'} not ready"
    )


async def _lags(world: World) -> dict[str, int]:
    """Return how many messages each group has not read."""
    lags = {}
    for service, names in GROUPS.items():
        consumer = AIOKafkaConsumer(
            bootstrap_servers=world.kafka, group_id=f"eshop-{service}", enable_auto_commit=False
        )
        await consumer.start()
        try:
            partitions = [TopicPartition(name, number) for name in names for number in range(PARTITIONS)]
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            lags[service] = sum([ends[one] - (await consumer.committed(one) or 0) for one in partitions])
        finally:
            await consumer.stop()
    return lags


async def until_told(world: World, listeners: list[Listener], seconds_max: float = 30) -> None:
    """Return when every listener has heard of everything; raise AssertionError where somebody has not."""
    users = [listener.user_id for listener in listeners]
    heads: dict[str, dict[str, int]] = {}
    for stream, service, history in (
        ("orders", "orders", "order_history"),
        ("wallet", "payments", "wallet_history"),
    ):
        sql = (
            f"SELECT user_id, max(feed_number) AS head FROM {history}"
            " WHERE user_id = ANY (%s) GROUP BY user_id"
        )
        heads[stream] = {row.user_id: row.head for row in await world.ask(service, sql, users)}
    end = time.monotonic() + seconds_max
    while behind := [
        f"{listener.user_id} {stream}: {listener.last[stream]} of {head[listener.user_id]}"
        for stream, head in heads.items()
        for listener in listeners
        if listener.user_id in head and listener.last[stream] < head[listener.user_id]
    ]:
        assert time.monotonic() < end, f"not told in {seconds_max:.0f} s: {', '.join(behind[:5])}"
        await asyncio.sleep(0.1)


def restarts_by_themselves(world: World) -> dict[str, int]:
    """Return how often processes were started again that nobody had ended."""
    more = {name: record.restarts - world.ended_by_us[name] for name, record in world.records().items()}
    return {name: count for name, count in more.items() if count > 0}


def loops(world: World) -> list[str]:
    """Return which processes ended by themselves more often than can be.

    Who starts while Kafka or Postgres is away may end once or twice before it can.
    """
    outages = world.ended_by_us["kafka"] + world.ended_by_us["postgres"] + world.broker_outages
    allowed = STARTS_LOST_MAX * outages
    return [
        f"{name} ended by itself {count} times"
        for name, count in restarts_by_themselves(world).items()
        # A Postgres whose disk is full ends, and comes back.
        if name != "postgres" and count > allowed
    ]


async def audit(world: World, answers: Path) -> dict[str, Any]:
    """Run `eshop audit`; return what it says, with its exit code."""
    words = ("audit", "--json", "--settle", "30", "--data", str(world.shop.data), "--answers", str(answers))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "eshop.cli", *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "COLUMNS": "200"},
    )
    out, err = await asyncio.wait_for(process.communicate(), AUDIT_SECONDS_MAX)
    try:
        told: dict[str, Any] = json.loads(out)
    except ValueError:
        told = {"ok": False, "error": (err or out).decode(errors="replace")[-2_000:]}
    return told | {"exit_code": process.returncode}
