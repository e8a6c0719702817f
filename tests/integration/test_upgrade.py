"""A shop with data is migrated while workers of the version before run on, and new ones join them."""

import asyncio
import os
import sys
import tarfile
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import psycopg2
import pytest
from alembic.script import ScriptDirectory

from eshop.cluster.embedded import EmbeddedCluster
from eshop.cluster.ports import free_port
from eshop.contracts.proto import orders_v1_pb2 as orders_pb
from eshop.contracts.proto import payments_v1_pb2 as payments_pb
from eshop.contracts.proto.orders_v1_pb2_grpc import OrdersStub
from eshop.contracts.proto.payments_v1_pb2_grpc import PaymentsStub
from eshop.contracts.proto.shared_v1_pb2 import RequestContext
from eshop.rpc.client import credentials, open_channel
from eshop.store.migrate import on_database
from tests.builders import new_database_url, new_id

ROOT = Path(__file__).parents[2]
MIGRATIONS = ROOT / "eshop" / "store" / "migrations"
#: What workers need of the sources before payments/versions/0002_accounts.py, with both databases at 0001.
#: Made once from COMMIT, the one that added that file, and made again, byte for byte, by
#: git archive COMMIT^ eshop ':!eshop/cluster' ':!eshop/cli' | gzip -9n
BEFORE = Path(__file__).parent / "versions" / "eshop-0001.tar.gz"
TOKEN = credentials("development-service-token")
READY_SECONDS_MAX = 90
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
        for service in ("orders", "payments")
    }


@dataclass
class World:
    """Databases, topics and a group of the test's own."""

    cluster: EmbeddedCluster
    folder: Path
    name: str = field(default_factory=lambda: f"u{uuid.uuid4().hex[:8]}.")
    taken: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        admin_url = self.cluster.postgres_admin_url
        self.urls = {service: new_database_url(admin_url, service) for service in ("orders", "payments")}

    def environment(self, service: str, grpc_port: int, web_port: int) -> dict[str, str]:
        """Return a worker's settings."""
        return os.environ | {
            "ESHOP_KAFKA": self.cluster.kafka,
            "ESHOP_ADMIN_DATABASE_URL": self.cluster.postgres_admin_url,
            "ESHOP_DATABASE_URL": self.urls[service],
            "ESHOP_TOPIC_PREFIX": self.name,
            "ESHOP_GROUP_SUFFIX": f"-{self.name}x",
            "ESHOP_DATA": str(self.folder),
            "ESHOP_WEB_LISTEN": f"127.0.0.1:{web_port}",
            "ESHOP_GRPC_LISTEN": f"127.0.0.1:{grpc_port}",
        }

    def query(self, service: str, sql: str) -> list[Any]:
        """Look into a service's database."""
        connection = psycopg2.connect(on_database(self.cluster.postgres_admin_url, self.urls[service]))
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(sql)
                return list(cursor.fetchall())
        finally:
            connection.close()

    @asynccontextmanager
    async def worker(self, service: str, sources: Path) -> AsyncIterator[str]:
        """Run a worker of some version; yield its gRPC address once it is ready."""
        grpc_port, web_port = free_port(self.taken), free_port(self.taken)
        log = self.folder / f"{service}-{web_port}.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "faust", "-A", f"eshop.{service}", "worker", "-l", "info"),
                env=self.environment(service, grpc_port, web_port),
                cwd=sources,
                stdout=output,
                stderr=output,
            )
        try:
            await until_ready(process, web_port, log)
            yield f"127.0.0.1:{grpc_port}"
            assert process.returncode is None, end_of(log)
        finally:
            if process.returncode is None:
                process.terminate()
            await asyncio.wait_for(process.wait(), 30)


def end_of(log: Path) -> str:
    """Return the last lines of a worker's log."""
    return log.read_text()[-3_000:]


async def until_ready(process: asyncio.subprocess.Process, web_port: int, log: Path) -> None:
    """Wait until a worker says that it is ready."""
    async with asyncio.timeout(READY_SECONDS_MAX), aiohttp.ClientSession() as http:
        while True:
            assert process.returncode is None, end_of(log)
            try:
                async with http.get(f"http://127.0.0.1:{web_port}/health/ready") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)


async def fill_wallets(payments: str) -> None:
    """Open an account with money for every user."""
    async with open_channel(payments) as channel:
        stub = PaymentsStub(channel)
        for user in USERS:
            context = RequestContext(user_id=user)
            await stub.OpenAccount(
                payments_pb.OpenAccountRequest(context=context, currency="USD"), metadata=TOKEN
            )
            await stub.TopUp(
                payments_pb.TopUpRequest(context=context, amount_minor=BALANCE_MINOR), metadata=TOKEN
            )


async def keep_ordering(orders: list[str], placed: set[str], stop: asyncio.Event) -> None:
    """Place orders with all users, at whichever workers there are, until told to stop."""
    while not stop.is_set():
        for address in list(orders):
            async with open_channel(address) as channel:
                request = orders_pb.CreateOrdersRequest(
                    orders=[
                        orders_pb.CreateOrder(
                            context=RequestContext(user_id=user, idempotency_key=new_id(), fingerprint=b"1"),
                            amount_minor=3,
                            currency="USD",
                        )
                        for user in USERS
                    ]
                )
                try:
                    reply = await OrdersStub(channel).CreateOrders(request, metadata=TOKEN, timeout=30)
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


def versions(world: World) -> dict[str, str]:
    """Return the version each service's database is at."""
    return {
        service: world.query(service, "SELECT version_num FROM alembic_version")[0][0]
        for service in world.urls
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
            await fill_wallets(old_payments)
            ordering = asyncio.create_task(keep_ordering(orders, placed, stop))
            # The new workers migrate at their start, and join the groups of the old ones.
            await new.enter_async_context(world.worker("payments", ROOT))
            orders.append(await new.enter_async_context(world.worker("orders", ROOT)))
            assert versions(world) == newest_versions()
            await until_one_more(placed, ordering)
            # An old one that is started again finds a database that is newer than itself.
            await old.enter_async_context(world.worker("payments", before))
            assert versions(world) == newest_versions()
            await until_one_more(placed, ordering)
            orders.pop(0)  # what is under way there may end while the old workers leave
        stop.set()
        await ordering
        await until_all_final(world)
    assert_all_is_right(world, placed)


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
        " FROM wallets w JOIN legs l USING (user_id) GROUP BY w.user_id",
    )
    assert wallets == [(BALANCE_MINOR, True)] * len(USERS)
    for service, history in (("orders", "order_history"), ("payments", "wallet_history")):
        gaps = f"SELECT user_id FROM {history} GROUP BY user_id HAVING max(seq) <> count(*)"
        assert world.query(service, gaps) == []
