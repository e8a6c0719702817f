"""Watermarks on a real Postgres: a hole rolls the batch back, unless the log itself has it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
import pytest

from eshop.agents.positions import judge
from eshop.cluster.embedded import EmbeddedCluster
from eshop.contracts.messages import Origin
from eshop.store.faults import WatermarkGap
from eshop.store.migrate import on_database
from eshop.store.unit_of_work import PaymentsUnitOfWork, Store
from eshop.store.watermarks import Hole

Payments = Store[PaymentsUnitOfWork]
TOPIC = "topic"


async def advance(payments: Payments, *offsets: int, holes: frozenset[Hole] = frozenset()) -> None:
    """Store that messages at these offsets of a partition were handled."""
    origins = [Origin(TOPIC, 3, offset) for offset in offsets]
    await payments.transact(lambda uow: uow.watermarks.advance(origins, holes))


async def mark(payments: Payments) -> int:
    """Return the partition's watermark."""
    return (await payments.read(lambda uow: uow.watermarks.read(TOPIC))).get(3, 0)


@pytest.mark.parametrize("before", [0, 3])
async def test_batch_behind_a_hole_is_rolled_back(payments: Payments, before: int) -> None:
    if before:
        await advance(payments, *range(before))
    with pytest.raises(WatermarkGap, match=f"offsets {before} to {before} were passed over"):
        await advance(payments, before + 1, before + 2)
    assert await mark(payments) == before
    await advance(payments, before, before + 1)
    assert await mark(payments) == before + 2


async def test_hole_inside_a_batch_rolls_it_back(payments: Payments) -> None:
    with pytest.raises(WatermarkGap, match="offsets 1 to 1"):
        await advance(payments, 0, 2)
    assert await mark(payments) == 0


async def test_hole_of_the_log_is_accepted_and_no_other(payments: Payments) -> None:
    await advance(payments, 0, 2, holes=frozenset({(TOPIC, 3, 1, 2)}))
    await advance(payments, 5, holes=frozenset({(TOPIC, 3, 3, 5)}))
    assert await mark(payments) == 6
    with pytest.raises(WatermarkGap, match="offsets 6 to 7"):
        await advance(payments, 8, holes=frozenset({(TOPIC, 3, 6, 7), (TOPIC, 3, 5, 8), (TOPIC, 2, 6, 8)}))


async def test_messages_that_come_again_are_never_filtered_nor_set_it_back(payments: Payments) -> None:
    await advance(payments, 0, 1, 2)
    await advance(payments, 0, 1)
    assert await mark(payments) == 3
    await payments.transact(lambda uow: uow.watermarks.reset(TOPIC, {3: 1}))
    assert await mark(payments) == 1


@pytest.mark.parametrize(
    ("watermark", "committed", "start", "end", "read_from"),
    [
        (5, 5, 0, 9, None),
        (5, 3, 0, 9, None),
        (0, None, 0, 9, None),
        (5, 7, 0, 9, 5),
        (0, 7, 0, 9, 0),
        (5, 5, 0, 4, 0),
        (5, None, 0, 9, 0),
        (5, 5, 7, 9, 7),
        (0, None, 7, 9, 7),
    ],
    ids=[
        "as it should be",
        "not committed yet",
        "never read",
        "moved ahead",
        "moved ahead before anything was handled",
        "log truncated",
        "log created again",
        "log's start was dropped",
        "first reader of an old log",
    ],
)
def test_reader_is_put_where_nothing_can_be_passed_over(
    watermark: int, committed: int | None, start: int, end: int, read_from: int | None
) -> None:
    correction = judge(watermark, committed, start, end)
    assert (correction and correction.offset) == read_from


def test_messages_dropped_before_they_were_read_are_counted() -> None:
    dropped, never_there = judge(5, 5, 7, 9), judge(0, None, 7, 9)
    assert dropped is not None
    assert never_there is not None
    assert (dropped.lost, never_there.lost) == (2, 0)


@contextmanager
def administrator(cluster: EmbeddedCluster, payments: Payments) -> Iterator[Any]:
    """Yield a cursor of somebody who may see all, each statement by itself."""
    connection = psycopg2.connect(on_database(cluster.postgres_admin_url, payments.database.url))
    connection.autocommit = True
    try:
        yield connection.cursor()
    finally:
        connection.close()


def pages_of_a_batch(cursor: Any, next_offset: int) -> int:
    """Advance twelve partitions, and return how many pages that reads."""
    cursor.execute(
        "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)"
        " INSERT INTO watermarks AS mine (consumer, topic, partition, next_offset)"
        f" SELECT 'payments', 'topic', n, {next_offset} FROM generate_series(0, 11) AS n"
        " ON CONFLICT (consumer, topic, partition) DO UPDATE"
        " SET next_offset = greatest(mine.next_offset, excluded.next_offset)"
    )
    plan = cursor.fetchone()[0][0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def test_what_a_held_snapshot_costs_is_over_with_it(cluster: EmbeddedCluster, payments: Payments) -> None:
    with administrator(cluster, payments) as holder, administrator(cluster, payments) as cursor:
        pages_of_a_batch(cursor, 1)
        before = pages_of_a_batch(cursor, 2)
        holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM watermarks")
        for next_offset in range(3, 1_003):
            during = pages_of_a_batch(cursor, next_offset)
        assert during < before + 2_000  # about a page for each batch, not one for each of its twelve versions
        holder.execute("ROLLBACK")
        pages_of_a_batch(cursor, 1_003)  # finds that the versions are dead, and says so in the index
        assert pages_of_a_batch(cursor, 1_004) <= 2 * before


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("watermarks", "next_offset = next_offset + 1"),
        ("relay_lease", "token = token + 1, holder = 'me', expires_at = now()"),
        ("wallets", "feed_number = feed_number + 1, balance_minor = balance_minor + 1"),
    ],
)
async def test_what_changes_often_is_in_no_index(
    cluster: EmbeddedCluster, payments: Payments, table: str, change: str
) -> None:
    await advance(payments, 0)
    with administrator(cluster, payments) as cursor:
        cursor.execute("INSERT INTO wallets (user_id, currency) VALUES ('ann', 'USD')")
        for _ in range(50):
            cursor.execute(f"UPDATE {table} SET {change}")
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute(f"SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = '{table}'")
        updated, hot = cursor.fetchone()
    assert updated >= 50
    assert hot >= 0.9 * updated
