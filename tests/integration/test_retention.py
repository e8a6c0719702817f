"""Retention on a real Postgres: what nothing stands on any more goes, however much it is; nothing else."""

import pytest

from eshop.handlers.orders import place_orders, record_outcomes
from eshop.store import retention
from eshop.store.outbox import read_unsent
from eshop.store.retention import remove_expired
from eshop.store.schema import ORDERS
from eshop.store.units import OrdersUnitOfWork, Store
from tests.builders import Partition, captured, place_order

Orders = Store[OrdersUnitOfWork]


async def count(orders: Orders, table: str) -> int:
    """Return how many rows there are."""
    (row,) = await orders.database.run_alone(lambda s: s.run_sql(f"SELECT count(*) FROM {table}"))
    return int(row.count)


async def test_all_that_expired_goes_and_nothing_that_is_unsent_or_young(
    orders: Orders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "ROWS_MAX", 2)
    requests = [place_order("ann") for _ in range(6)]
    await orders.transact(lambda uow: place_orders(uow, requests, 60))
    partition = Partition()
    heard = [partition.message(captured("ann", request.order_id, 5)) for request in requests[:5]]
    await orders.transact(lambda uow: record_outcomes(uow, heard))
    for aged in (
        "UPDATE outbox SET created_at = now() - interval '9 days' WHERE outbox_id <= 6",
        "UPDATE outbox SET sent_at = now(), sent_offset = 1 WHERE outbox_id <= 5",
        "UPDATE inbox SET received_at = now() - interval '16 days' WHERE \"offset\" > 0",
    ):
        await orders.database.run_alone(lambda session, aged=aged: session.run_sql(aged))  # type: ignore[misc]
    await remove_expired(orders.database, ORDERS.tables)
    assert await count(orders, "inbox") == 1
    assert await count(orders, "outbox") == 6
    assert len(await orders.database.run_alone(lambda session: read_unsent(session, 100))) == 6
