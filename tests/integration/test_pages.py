"""A wallet with 100,000 orders: its last page costs what its first one costs."""

import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg2
import pytest

from eshop.cluster.embedded import EmbeddedCluster
from eshop.rpc.convert import NUMBER_MAX
from eshop.store import ledger as ledger_module
from eshop.store import orders as orders_module
from eshop.store.database import Session
from eshop.store.migrate import on_database
from eshop.store.unit_of_work import OrdersUnitOfWork, PaymentsUnitOfWork, Store

ROWS = 100_000
PAGE = 20
#: Another user's rows lie around, so that an index has something to leave out.
ORDERS = """
INSERT INTO users SELECT name, %(rows)s FROM (VALUES ('ann'), ('bob')) AS u (name);
INSERT INTO orders (order_id, user_id, feed_number, amount_minor, currency, status, version, repeat_at)
SELECT uuidv7(), name, n, 1, 'USD', 'FINISHED', 2, now()
FROM generate_series(1, %(rows)s) AS n, (VALUES ('ann'), ('bob')) AS u (name);
ANALYZE orders;
"""
PAYMENTS = """
INSERT INTO wallets (user_id, feed_number, currency)
SELECT name, %(rows)s, 'USD' FROM (VALUES ('ann'), ('bob')) AS u (name);
CREATE TEMPORARY TABLE made AS
SELECT uuidv7() AS id, uuidv7() AS order_id, name, n
FROM generate_series(1, %(rows)s) AS n, (VALUES ('ann'), ('bob')) AS u (name);
INSERT INTO transfers (transfer_id, kind, user_id, currency, order_id)
SELECT id, 'capture', name, 'USD', order_id FROM made;
INSERT INTO legs SELECT id, 1, 'wallet', name, -1 FROM made;
INSERT INTO legs SELECT id, 2, 'sales', NULL, 1 FROM made;
INSERT INTO wallet_history (user_id, feed_number, balance_minor, currency, transfer_id)
SELECT name, n, %(rows)s - n, 'USD', id FROM made;
ANALYZE transfers; ANALYZE legs; ANALYZE wallet_history;
"""


def fill(admin_url: str, url: str, sql: str) -> None:
    """Insert the rows as the administrator, who has no statement timeout."""
    connection = psycopg2.connect(on_database(admin_url, url))
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(sql, {"rows": ROWS})
    finally:
        connection.close()


async def median_ms(read: Callable[[], Awaitable[list[Any]]], rows: int) -> float:
    """Return how long a page takes, in milliseconds."""
    taken = []
    for _ in range(15):
        begun = time.perf_counter()
        assert len(await read()) == rows
        taken.append((time.perf_counter() - begun) * 1_000)
    return statistics.median(taken)


class Explained(Session):
    """A session that asks for the plan instead of the rows."""

    async def run_sql(self, text: str, parameters: dict[str, Any] | None = None) -> list[Any]:
        """Return the plan's lines."""
        return await super().run_sql(f"EXPLAIN {text}", parameters)


def show(capsys: pytest.CaptureFixture[str], what: str, first: float, last: float) -> None:
    """Print the two figures side by side."""
    with capsys.disabled():
        print(f"\n{what} of {ROWS:,}: first page {first:.1f} ms, last page {last:.1f} ms")  # noqa: T201


def assert_reads_an_index(plan: list[Any], index: str) -> None:
    """Check that the page is read off the index, newest first, and nothing is sorted or scanned."""
    lines = "\n".join(row[0] for row in plan)
    assert f"Index Scan Backward using {index}" in lines, lines
    assert "Sort" not in lines, lines
    assert "Seq Scan" not in lines, lines


async def test_last_page_of_orders_costs_what_the_first_costs(
    cluster: EmbeddedCluster, orders: Store[OrdersUnitOfWork], capsys: pytest.CaptureFixture[str]
) -> None:
    fill(cluster.postgres_admin_url, orders.database.url, ORDERS)
    times: dict[str, Any] = {"created_after": "-infinity", "created_before": "infinity"}

    async def page(before_feed_number: int) -> list[Any]:
        return await orders.read(
            lambda uow: uow.orders.page(
                "ann", limit=PAGE, before_feed_number=before_feed_number, status="", **times
            )
        )

    first, last = (
        await median_ms(lambda: page(NUMBER_MAX), PAGE),
        await median_ms(lambda: page(PAGE + 1), PAGE),
    )
    show(capsys, "orders", first, last)
    plan = await orders.database.run_alone(
        lambda session: Explained(session._cursor).run(
            orders_module._PAGE, user_id="ann", limit=PAGE, before_feed_number=PAGE + 1, status="", **times
        )
    )
    assert_reads_an_index(plan, "orders_user_id_feed_number_key")


async def test_last_page_of_the_statement_costs_what_the_first_costs(
    cluster: EmbeddedCluster, payments: Store[PaymentsUnitOfWork], capsys: pytest.CaptureFixture[str]
) -> None:
    fill(cluster.postgres_admin_url, payments.database.url, PAYMENTS)

    async def page(before_feed_number: int) -> list[Any]:
        return await payments.read(lambda uow: uow.ledger.statement("ann", before_feed_number, PAGE))

    first, last = (
        await median_ms(lambda: page(NUMBER_MAX), PAGE),
        await median_ms(lambda: page(PAGE + 1), PAGE),
    )
    show(capsys, "statement", first, last)
    plan = await payments.database.run_alone(
        lambda session: Explained(session._cursor).run(
            ledger_module._STATEMENT, user_id="ann", limit=PAGE, before_feed_number=PAGE + 1
        )
    )
    assert_reads_an_index(plan, "wallet_history_pkey")
