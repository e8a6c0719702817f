"""Messages that the broker lost: an order that stays NEW gets cancellation requests until it is final."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from eshop.cluster.embedded import EmbeddedCluster
from eshop.contracts.topics import ORDERS_EVENTS, PAYMENTS_EVENTS
from tests.support.worker_process import World, fill_wallets, place_orders, recreate_topic, truncate_topic

USERS = [f"user-{number}" for number in range(10)]
BALANCE_MINOR = 1_000
AMOUNT_MINOR = 30
#: Age at which an order's cancellation is requested; long enough to create a topic again meanwhile.
DEADLINE_SECONDS = 5
WAIT_SECONDS_MAX = 60
#: What makes a broker forget: given its address, a prefix, and a topic's name.
Loss = Callable[[str, str, str], Awaitable[None]]

losses = pytest.mark.parametrize("lose", [recreate_topic, truncate_topic])


async def a_world_with_money(cluster: EmbeddedCluster, folder: Path) -> World:
    world = World(cluster, folder)
    async with world.worker("payments") as payments:
        await fill_wallets(payments, USERS, BALANCE_MINOR)
    return world


async def until(world: World, service: str, sql: str, count: int) -> None:
    """Wait until a query counts a number of rows."""
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while world.query(service, f"SELECT count(*) FROM {sql}") != [(count,)]:
            await asyncio.sleep(0.1)


def ends(world: World) -> set[tuple[str, str]]:
    """Return how the orders ended."""
    return set(world.query("orders", "SELECT status, reason FROM orders"))


def assert_nobody_paid(world: World) -> None:
    wallets = "SELECT DISTINCT balance_minor, (SELECT sum(amount_minor) FROM legs)::bigint FROM wallets"
    assert world.query("payments", wallets) == [(BALANCE_MINOR, 0)]


@losses
@pytest.mark.timeout(300)
async def test_orders_whose_events_were_lost_are_cancelled_and_never_charged(
    cluster: EmbeddedCluster, tmp_path: Path, lose: Loss
) -> None:
    world = await a_world_with_money(cluster, tmp_path)
    async with world.worker("orders", deadline_seconds=DEADLINE_SECONDS) as orders:
        await place_orders(orders, USERS, AMOUNT_MINOR)
        await until(world, "orders", "outbox WHERE sent_at IS NOT NULL", len(USERS))
        await lose(cluster.kafka, world.name, ORDERS_EVENTS.name)
        async with world.worker("payments"):
            await until(world, "orders", "orders WHERE status <> 'NEW'", len(USERS))
    assert ends(world) == {("CANCELLED", "timeout")}
    assert set(world.query("payments", "SELECT status FROM payments")) == {("REFUSED",)}
    assert_nobody_paid(world)


@losses
@pytest.mark.timeout(300)
async def test_orders_whose_payments_were_lost_are_cancelled_and_refunded(
    cluster: EmbeddedCluster, tmp_path: Path, lose: Loss
) -> None:
    world = await a_world_with_money(cluster, tmp_path)
    async with world.worker("orders", deadline_seconds=DEADLINE_SECONDS) as orders:
        await place_orders(orders, USERS, AMOUNT_MINOR)
        await until(world, "orders", "outbox WHERE sent_at IS NOT NULL", len(USERS))
    async with world.worker("payments"):
        captured = "outbox WHERE type = 'eshop.payments.PaymentCaptured' AND sent_at IS NOT NULL"
        await until(world, "payments", captured, len(USERS))
    await lose(cluster.kafka, world.name, PAYMENTS_EVENTS.name)
    async with world.worker("orders", deadline_seconds=DEADLINE_SECONDS), world.worker("payments"):
        await until(world, "orders", "orders WHERE status <> 'NEW'", len(USERS))
    assert ends(world) == {("CANCELLED", "timeout")}
    assert set(world.query("payments", "SELECT status FROM payments")) == {("REFUNDED",)}
    assert_nobody_paid(world)
