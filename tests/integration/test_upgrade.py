"""A shop with data is migrated while workers of the version before run on, and new ones join them."""

import asyncio
import tarfile
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import grpc
import psycopg2
import pytest
from alembic.script import ScriptDirectory

from eshop.audit.audit import Wanted, audit
from eshop.audit.sources import Sources
from eshop.clients.channel import open_channel
from eshop.cluster.embedded import EmbeddedCluster
from eshop.contracts.proto import payments_v1_pb2 as payments_pb
from eshop.contracts.proto.orders_v1_pb2_grpc import OrdersStub
from eshop.contracts.proto.payments_v1_pb2_grpc import PaymentsStub
from eshop.contracts.proto.shared_v1_pb2 import RequestContext
from eshop.handlers.parking import BURST_MAX
from eshop.settings import Settings
from eshop.store.migrate import on_database
from tests.integration.audit_world import Silent
from tests.support.worker_process import (
    READY_SECONDS_MAX,
    ROOT,
    TOKEN,
    World,
    fill_wallets,
    orders_of,
    place_orders,
)

MIGRATIONS = ROOT / "eshop" / "store" / "migrations"
#: What workers need of the sources before payments/versions/0002_accounts.py, with both databases at 0001.
#: Made once from COMMIT, the one that added that file, and made again, byte for byte, by
#: git archive COMMIT^ eshop ':!eshop/cluster' ':!eshop/cli' | gzip -9n
BEFORE = Path(__file__).parent / "versions" / "eshop-0001.tar.gz"
SERVICES_BEFORE = ("orders", "payments")
USERS = [f"user-{number}" for number in range(10)]
BALANCE_MINOR = 100_000


def version_before(folder: Path) -> Path:
    """Unpack the sources of the version before."""
    with tarfile.open(BEFORE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def newest_versions() -> dict[str, str | None]:
    """Return the version that these sources bring each service's database to."""
    return {
        service: ScriptDirectory(
            str(MIGRATIONS), version_locations=[str(MIGRATIONS / service / "versions")]
        ).get_current_head()
        for service in SERVICES_BEFORE
    }


async def keep_ordering(orders: list[str], placed: set[str], stop: asyncio.Event) -> None:
    """Place orders with all users, at whichever workers there are, until told to stop."""
    while not stop.is_set():
        for address in list(orders):
            async with open_channel(address) as channel:
                try:
                    reply = await OrdersStub(channel).CreateOrders(
                        orders_of(USERS, 3), metadata=TOKEN, timeout=30
                    )
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
                    continue
                for result in reply.results:
                    if result.HasField("order"):
                        placed.add(result.order.order_id)
                    else:  # the user's row was locked for too long: the next round orders again
                        assert result.refusal.code == "idempotency-in-progress", result
        await asyncio.sleep(0.02)


async def until_one_more(placed: set[str], ordering: asyncio.Task[None]) -> None:
    """Wait until an order is placed that was not there before; fail with what places them."""
    before = len(placed)
    async with asyncio.timeout(READY_SECONDS_MAX):
        while len(placed) == before:
            if ordering.done():
                ordering.result()
            await asyncio.sleep(0.05)


@contextmanager
def held_snapshot(world: World, service: str) -> Iterator[None]:
    """Hold a snapshot of a service's database, as a dump does."""
    connection = psycopg2.connect(on_database(world.cluster.postgres_admin_url, world.urls[service]))
    try:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with connection.cursor() as cursor:
            for table in ("orders", "outbox", "inbox"):
                cursor.execute(f"SELECT FROM {table} LIMIT 1")
        yield
    finally:
        connection.close()


async def until_migration_waits(world: World, service: str) -> None:
    """Wait until a worker has said that its migration tries again later."""
    async with asyncio.timeout(READY_SECONDS_MAX):
        while not any(
            "tries again" in log.read_text(errors="replace") for log in world.folder.glob(f"{service}-*.log")
        ):
            await asyncio.sleep(0.1)


async def top_up(payments: str, user: str, reference: str) -> str | None:
    """Open an account if there is none, top up, and return the kind of the answer."""
    async with open_channel(payments) as channel:
        stub = PaymentsStub(channel)
        context = RequestContext(user_id=user)
        await stub.OpenAccount(
            payments_pb.OpenAccountRequest(context=context, currency="USD"), metadata=TOKEN
        )
        asked = payments_pb.TopUpRequest(context=context, amount_minor=7, reference=reference)
        outcome: str | None = (await stub.TopUp(asked, metadata=TOKEN)).WhichOneof("outcome")
        return outcome


def versions(world: World) -> dict[str, str]:
    """Return the version each service's database is at."""
    return {
        service: world.query(service, "SELECT version_num FROM alembic_version")[0][0]
        for service in SERVICES_BEFORE
    }


@pytest.mark.timeout(300)
async def test_workers_of_the_version_before_go_on_while_the_newer_ones_take_over(
    cluster: EmbeddedCluster, tmp_path: Path
) -> None:
    before = version_before(tmp_path / "before")
    world = World(cluster, tmp_path)
    orders: list[str] = []
    placed: set[str] = set()
    stop = asyncio.Event()
    async with AsyncExitStack() as new:
        async with AsyncExitStack() as old:
            old_payments = await old.enter_async_context(world.worker("payments", before))
            orders.append(await old.enter_async_context(world.worker("orders", before)))
            assert versions(world) == {"orders": "0001", "payments": "0001"}
            await fill_wallets(old_payments, USERS, BALANCE_MINOR)
            ordering = asyncio.create_task(keep_ordering(orders, placed, stop))
            # The new workers migrate at their start, and join the groups of the old ones.
            new_payments = await new.enter_async_context(world.worker("payments", ROOT))
            with held_snapshot(world, "orders"):
                starting = asyncio.create_task(new.enter_async_context(world.worker("orders", ROOT)))
                await until_migration_waits(world, "orders")
                for _ in range(3):
                    await until_one_more(placed, ordering)
                assert versions(world)["orders"] == "0001"
            orders.append(await starting)
            assert versions(world) == newest_versions()
            await until_one_more(placed, ordering)
            # References: the old worker knows the new index, the new one lets each user have its own.
            assert await top_up(old_payments, "eve", "r") == "account"
            assert await top_up(old_payments, "eve", "r") == "refusal"
            assert await top_up(new_payments, "bob", "r") == "account"
            assert await top_up(new_payments, "bob", "r") == "refusal"
            # An old one that is started again finds a database that is newer than itself.
            await old.enter_async_context(world.worker("payments", before))
            assert versions(world) == newest_versions()
            await until_one_more(placed, ordering)
            orders.pop(0)  # what is under way there may end while the old workers leave
        stop.set()
        await ordering
        await until_all_final(world)
    assert_all_is_right(world, placed)


@pytest.mark.timeout(300)
async def test_new_type_of_event_needs_no_other_service_to_be_deployed_first(
    cluster: EmbeddedCluster, tmp_path: Path
) -> None:
    world = World(cluster, tmp_path)
    count = 2 * BURST_MAX
    async with AsyncExitStack() as workers:
        payments = await workers.enter_async_context(world.worker("payments"))
        orders = await workers.enter_async_context(world.worker("orders"))
        await fill_wallets(payments, USERS[:1], BALANCE_MINOR)
        before = await place_orders(orders, USERS[:1], 3)
        await until_all_final(world)
        # What a newer payments would send of this user.
        new = world.query(
            "payments",
            f"""
            INSERT INTO outbox (topic, user_id, type, source, dataschema, body, correlation_id, causation_id)
            SELECT topic, user_id, 'eshop.payments.AccountRenamed', source,
                'eshop/payments/v1/AccountRenamed',
                '{{"user_id": "{USERS[0]}", "name": "lamp"}}', correlation_id, causation_id
            FROM outbox, generate_series(1, {count}) WHERE type = 'eshop.payments.AccountOpened'
            RETURNING message_id::text
            """,
        )
        after = await place_orders(orders, USERS[:1], 3)
        await until_all_final(world)
        claimed = {row[0] for row in world.query("orders", "SELECT message_id::text FROM inbox")}
        assert len(new) == count
        assert {row[0] for row in new} <= claimed
        assert world.query("orders", "SELECT count(*) FROM dead_letters") == [(0,)]
        assert {
            row[0] for row in world.query("orders", "SELECT order_id::text FROM orders")
        } == before | after
        settings = Settings(topic_prefix=world.name, group_suffix=f"-{world.name}")
        sources = Sources(world.urls["orders"], world.urls["payments"], cluster.kafka, settings)
        report = await audit(Wanted(sources, Silent(), settle_seconds=30))
        assert report.ok, report.as_json()


async def until_all_final(world: World) -> None:
    """Wait until no order is NEW."""
    async with asyncio.timeout(60):
        while world.query("orders", "SELECT 1 FROM orders WHERE status = 'NEW' LIMIT 1"):
            await asyncio.sleep(0.2)


def assert_all_is_right(world: World, placed: set[str]) -> None:
    """Compare what was answered, ordered, paid and counted, over both versions."""
    finished = {
        row[0] for row in world.query("orders", "SELECT order_id::text FROM orders WHERE status = 'FINISHED'")
    }
    captured = {
        row[0]
        for row in world.query("payments", "SELECT order_id::text FROM transfers WHERE kind = 'capture'")
    }
    everything = {row[0] for row in world.query("orders", "SELECT order_id::text FROM orders")}
    assert placed <= everything
    assert finished == captured == everything
    wallets = world.query(
        "payments",
        "SELECT w.topped_up_minor, w.balance_minor = sum(l.amount_minor)"
        " FROM wallets w JOIN legs l USING (user_id) WHERE w.user_id LIKE 'user-%' GROUP BY w.user_id",
    )
    assert wallets == [(BALANCE_MINOR, True)] * len(USERS)
    for service, history in (("orders", "order_history"), ("payments", "wallet_history")):
        gaps = f"SELECT user_id FROM {history} GROUP BY user_id HAVING max(feed_number) <> count(*)"
        assert world.query(service, gaps) == []
