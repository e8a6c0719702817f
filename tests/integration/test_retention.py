"""Retention on a real Postgres: what expired goes, at the cost of what goes, whatever the clock says."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
import pytest
from prometheus_client import REGISTRY

from eshop.cluster.embedded import EmbeddedCluster
from eshop.handlers.orders import place_orders, record_outcomes
from eshop.store import retention as retention_module
from eshop.store.migrate import on_database
from eshop.store.outbox import read_unsent
from eshop.store.retention import KEPT_DAYS, Retention, removal_sql
from eshop.store.unit_of_work import OrdersUnitOfWork, Store
from tests.support.builders import Partition, captured, place_order, remove_all_expired

Orders = Store[OrdersUnitOfWork]
PASS_SECONDS = 600.0
TIMES = {"inbox": "received_at", "outbox": "sent_at", "requests": "created_at"}
INSERTS = {
    "inbox": 'INSERT INTO inbox (consumer, message_id, topic, partition, "offset", received_at)'
    " SELECT 'orders', uuidv7(), 'topic', 0, n, {at} FROM {numbers}",
    "outbox": "INSERT INTO outbox (topic, user_id, type, source, dataschema, body, correlation_id,"
    " causation_id, created_at, sent_at, sent_partition, sent_offset)"
    " SELECT 't', 'ann', 't', 's', 'd', repeat('b', 200), 'c', 'c', {at}, {at}, 0, n FROM {numbers}",
    "requests": "INSERT INTO requests (user_id, route, idempotency_key, fingerprint, answer, created_at)"
    " SELECT 'ann', 'top-up', gen_random_uuid()::text, '', '{{}}', {at} FROM {numbers}",
}


@pytest.fixture
def clock() -> list[float]:
    """A monotonic clock, to be set."""
    return [0.0]


@pytest.fixture
async def retention(orders: Orders, clock: list[float]) -> Retention:
    """Retention that has looked once, in a shop with one user."""
    await sql(orders, "INSERT INTO users (user_id) VALUES ('ann')")
    looking = Retention(orders.database, clock=lambda: clock[0])
    await looking.remove_expired()
    return looking


async def sql(orders: Orders, text: str) -> list[Any]:
    """Run a statement as the service."""
    return await orders.database.run_alone(lambda session: session.run_sql(text))


async def count(orders: Orders, table: str) -> int:
    """Return how many rows there are."""
    return int((await sql(orders, f"SELECT count(*) FROM {table}"))[0].count)


async def fill(orders: Orders, table: str, rows: int, *, days: float, until_days_ago: float = 0.0) -> None:
    """Add rows in order of time, evenly over a number of days."""
    seconds, ago = days * 86_400 / rows, until_days_ago * 86_400
    at = f"now() - make_interval(secs => {ago} + ({rows} - n) * {seconds}::float)"
    await sql(orders, INSERTS[table].format(at=at, numbers=f"generate_series(1, {rows}) AS n"))


@contextmanager
def administrator(cluster: EmbeddedCluster, orders: Orders) -> Iterator[Any]:
    """Yield a cursor of somebody who may do everything, each statement by itself."""
    connection = psycopg2.connect(on_database(cluster.postgres_admin_url, orders.database.url))
    connection.autocommit = True
    try:
        yield connection.cursor()
    finally:
        connection.close()


async def test_all_that_expired_goes_and_nothing_that_is_unsent_or_young(
    orders: Orders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention_module, "ROWS_MAX", 2)
    requests = [place_order("ann") for _ in range(6)]
    await orders.transact(lambda uow: place_orders(uow, requests, 60))
    partition = Partition()
    heard = [partition.message(captured("ann", request.order_id, 5)) for request in requests[:5]]
    await orders.transact(lambda uow: record_outcomes(uow, heard))
    for aged in (
        "UPDATE outbox SET created_at = now() - interval '9 days'",
        "UPDATE outbox SET sent_at = created_at, sent_offset = 1 WHERE outbox_id <= 5",
        # Long on its way, and sent a week ago: its topic may still lose it.
        "UPDATE outbox SET sent_at = now() - interval '7 days', sent_offset = 1 WHERE outbox_id = 6",
        "UPDATE inbox SET received_at = now() - interval '16 days' WHERE \"offset\" > 0",
    ):
        await sql(orders, aged)
    await remove_all_expired(orders.database)
    assert await count(orders, "inbox") == 1
    assert await count(orders, "outbox") == 6
    assert len(await orders.database.run_alone(lambda session: read_unsent(session, 100))) == 5


def pages_read(cursor: Any, table: str, seconds: float) -> tuple[int, int]:
    """Remove the oldest rows up to a number of seconds; return how many, and the pages read to find them."""
    cursor.execute(f"SELECT removed_until::text FROM retention WHERE table_name = '{table}'")
    since = cursor.fetchone()[0]
    time = TIMES[table]
    until = f"(min({time}) + make_interval(secs => {seconds}))::text"
    cursor.execute(f"SELECT {until} FROM {table} WHERE {time} >= '{since}'")
    until = cursor.fetchone()[0]
    given = {"since": since, "until": until, "rows": 5_000}
    cursor.execute("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + removal_sql(table), given)
    finds = found_by(cursor.fetchone()[0][0]["Plan"])
    cursor.execute(f"UPDATE retention SET removed_until = '{until}' WHERE table_name = '{table}'")
    return finds["Actual Rows"], finds["Shared Hit Blocks"] + finds["Shared Read Blocks"]


def found_by(plan: dict[str, Any]) -> dict[str, Any]:
    """Return the part of the plan that finds what is to be removed."""
    if plan["Node Type"] == "Limit":
        return plan
    return next(found for child in plan.get("Plans", ()) if (found := found_by(child)))


@pytest.mark.parametrize("table", list(TIMES))
async def test_pass_costs_what_it_removes_in_every_cycle(
    cluster: EmbeddedCluster, orders: Orders, retention: Retention, table: str
) -> None:
    rows, days = 8_000, KEPT_DAYS[table]
    with administrator(cluster, orders) as cursor:
        for cycle in range(4, 0, -1):
            await fill(orders, table, rows, days=days, until_days_ago=(cycle - 1) * days)
            cursor.execute(f"VACUUM ANALYZE {table}")
            if cycle == 4:
                continue
            for _ in range(10):  # the cycle before goes, a tenth at a time
                removed, pages = pages_read(cursor, table, days * 86_400 / 10)
                assert removed == pytest.approx(rows / 10, abs=2)
                assert pages <= removed / 10 + 20
                cursor.execute(f"VACUUM {table}")
    assert await count(orders, table) == pytest.approx(rows, abs=20)


async def test_held_snapshot_lets_no_pass_read_what_others_removed(
    cluster: EmbeddedCluster, orders: Orders, retention: Retention
) -> None:
    await fill(orders, "inbox", 10_000, days=10, until_days_ago=15)
    with administrator(cluster, orders) as holder, administrator(cluster, orders) as cursor:
        cursor.execute("VACUUM ANALYZE inbox")
        holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM inbox LIMIT 1")
        passes = [pages_read(cursor, "inbox", 86_400) for _ in range(9)]
    assert all(removed == pytest.approx(1_000, abs=2) for removed, _ in passes)
    assert max(pages for _, pages in passes[1:]) <= 2 * passes[0][1]


async def shift(orders: Orders, days: int) -> None:
    """Make stored times older by a number of days: the same as the database's clock going ahead."""
    back = f"make_interval(days => {days})"
    await sql(orders, f"UPDATE requests SET created_at = created_at - {back}")
    await sql(orders, f"UPDATE retention SET removed_until = removed_until - {back}")


async def test_clock_a_week_ahead_for_ten_minutes_takes_twenty_minutes_of_request_keys(
    orders: Orders, retention: Retention, clock: list[float]
) -> None:
    minutes = 8 * 24 * 60  # of the eighth day all have expired
    await fill(orders, "requests", minutes, days=8)
    for _ in range(3):
        clock[0] += PASS_SECONDS
        await retention.remove_expired()
    before = await count(orders, "requests")
    assert minutes - before == pytest.approx(3 * 20, abs=3)
    await shift(orders, days=7)
    clock[0] += PASS_SECONDS
    await retention.remove_expired()
    assert before - await count(orders, "requests") == pytest.approx(20, abs=1)
    await shift(orders, days=-7)
    clock[0] += PASS_SECONDS
    await retention.remove_expired()
    assert before - await count(orders, "requests") == pytest.approx(40, abs=2)


async def test_quiet_months_do_not_save_up_a_share(
    orders: Orders, retention: Retention, clock: list[float]
) -> None:
    for _ in range(100):
        clock[0] += PASS_SECONDS
        await retention.remove_expired()
    await fill(orders, "requests", 1_000, days=1)
    await shift(orders, days=30)
    clock[0] += PASS_SECONDS
    await retention.remove_expired()
    assert 1_000 - await count(orders, "requests") == pytest.approx(14, abs=1)  # 20 of 1,440 minutes


async def test_many_workers_remove_no_more_than_one(
    orders: Orders, retention: Retention, clock: list[float]
) -> None:
    await fill(orders, "requests", 1_440, days=1, until_days_ago=7)
    workers = [retention, *(Retention(orders.database, clock=lambda: clock[0]) for _ in range(3))]
    for _ in range(11):
        for worker in workers:
            clock[0] += PASS_SECONDS / len(workers)
            await worker.remove_expired()
    removed = 1_440 - await count(orders, "requests")
    assert 10 * 10 <= removed <= 11 * 20 + len(workers)


async def test_rows_of_a_clock_that_was_behind_are_kept(
    orders: Orders, retention: Retention, clock: list[float]
) -> None:
    await fill(orders, "requests", 10, days=1, until_days_ago=7)
    await remove_all_expired(orders.database)
    await fill(orders, "requests", 5, days=1, until_days_ago=20)
    await remove_all_expired(orders.database)
    assert await count(orders, "requests") == 5


async def test_table_that_fails_stops_no_other(
    cluster: EmbeddedCluster, orders: Orders, retention: Retention, clock: list[float]
) -> None:
    for table in TIMES:
        await fill(orders, table, 10, days=1, until_days_ago=20)
    failures = [("eshop_retention_failures_total", {"table": table}) for table in TIMES]
    before = [REGISTRY.get_sample_value(*failure) or 0.0 for failure in failures]
    with administrator(cluster, orders) as cursor:
        cursor.execute("ALTER TABLE inbox RENAME TO away")
        clock[0] += 30 * 86_400
        await retention.remove_expired()
        cursor.execute("ALTER TABLE away RENAME TO inbox")
    assert [await count(orders, table) for table in TIMES] == [10, 0, 0]
    after = [REGISTRY.get_sample_value(*failure) or 0.0 for failure in failures]
    assert [now - then for now, then in zip(after, before, strict=True)] == [1.0, 0.0, 0.0]
    await retention.remove_expired()
    clock[0] += 30 * 86_400
    await retention.remove_expired()
    assert await count(orders, "inbox") == 0


async def test_pass_that_takes_too_long_ends_and_the_next_one_goes_on(
    orders: Orders, retention: Retention, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention_module, "ROWS_MAX", 4)
    monkeypatch.setattr(retention_module, "PASS_SECONDS_MAX", -1.0)
    await fill(orders, "requests", 10, days=1, until_days_ago=7)
    overdue: list[float] = []
    for left in (6, 2, 0):
        clock[0] += 86_400
        await retention.remove_expired()
        assert await count(orders, "requests") == left
        gauge = REGISTRY.get_sample_value("eshop_retention_overdue_seconds", {"table": "requests"})
        overdue.append(gauge or 0.0)
    assert overdue == sorted(overdue, reverse=True)
    assert overdue[-1] > 0
