"""Orders and payments workers on databases, topics and groups of their own, and what tests do with them."""

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psycopg2
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import CommitFailedError

from eshop.clients.channel import credentials, open_channel
from eshop.cluster.embedded import EmbeddedCluster
from eshop.cluster.ports import free_port
from eshop.contracts.proto import orders_v1_pb2 as orders_pb
from eshop.contracts.proto import payments_v1_pb2 as payments_pb
from eshop.contracts.proto.orders_v1_pb2_grpc import OrdersStub
from eshop.contracts.proto.payments_v1_pb2_grpc import PaymentsStub
from eshop.contracts.proto.shared_v1_pb2 import RequestContext
from eshop.contracts.topics import PARTITIONS
from eshop.kafka.topics import ensure_topics
from eshop.store.migrate import on_database
from tests.support.builders import new_database_url, new_id

ROOT = Path(__file__).parents[2]
TOKEN = credentials("development-service-token")
READY_SECONDS_MAX = 90
TOPIC_SECONDS_MAX = 30


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
    async def worker(
        self, service: str, sources: Path = ROOT, *, deadline_seconds: int = 60
    ) -> AsyncIterator[str]:
        """Run a worker of some version; yield its gRPC address once it is ready."""
        grpc_port, web_port = free_port(self.taken), free_port(self.taken)
        log = self.folder / f"{service}-{web_port}.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "faust", "-A", f"eshop.{service}", "worker", "-l", "info"),
                env=self.environment(service, grpc_port, web_port)
                | {"ESHOP_ORDER_DEADLINE_SECONDS": str(deadline_seconds)},
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


@asynccontextmanager
async def an_admin(kafka: str) -> AsyncIterator[AIOKafkaAdminClient]:
    """Yield a client that changes topics."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def recreate_topic(kafka: str, prefix: str, name: str) -> None:
    """Delete a topic of the catalogue with all of its messages, and create it again."""
    async with an_admin(kafka) as admin, asyncio.timeout(TOPIC_SECONDS_MAX):
        await admin.delete_topics([prefix + name])
        while prefix + name in await admin.list_topics():
            await asyncio.sleep(0.05)
    await ensure_topics(kafka, prefix)


async def truncate_topic(kafka: str, prefix: str, name: str) -> None:
    """Have the broker drop all messages of a topic of the catalogue; the next ones go on behind them."""
    async with an_admin(kafka) as admin:
        partitions = [TopicPartition(prefix + name, number) for number in range(PARTITIONS)]
        await admin.delete_records(dict.fromkeys(partitions, RecordsToDelete(before_offset=-1)))


async def commit_when_empty(consumer: AIOKafkaConsumer, offsets: dict[TopicPartition, int]) -> None:
    """Set a group's offsets by hand, as soon as the group has no member any more."""
    while True:
        try:
            await consumer.commit(offsets)
        except CommitFailedError:
            await asyncio.sleep(0.2)
        else:
            return


async def fill_wallets(payments: str, users: Iterable[str], balance_minor: int) -> None:
    """Open an account with money for every user."""
    async with open_channel(payments) as channel:
        stub = PaymentsStub(channel)
        for user in users:
            context = RequestContext(user_id=user)
            await stub.OpenAccount(
                payments_pb.OpenAccountRequest(context=context, currency="USD"), metadata=TOKEN
            )
            await stub.TopUp(
                payments_pb.TopUpRequest(context=context, amount_minor=balance_minor), metadata=TOKEN
            )


def orders_of(users: Iterable[str], amount_minor: int) -> orders_pb.CreateOrdersRequest:
    """Return a call that places an order for every user."""
    return orders_pb.CreateOrdersRequest(
        orders=[
            orders_pb.CreateOrder(
                context=RequestContext(user_id=user, idempotency_key=new_id(), fingerprint=b"1"),
                amount_minor=amount_minor,
                currency="USD",
            )
            for user in users
        ]
    )


async def place_orders(orders: str, users: Iterable[str], amount_minor: int) -> set[str]:
    """Place an order for every user, and return their ids."""
    async with open_channel(orders) as channel:
        reply = await OrdersStub(channel).CreateOrders(
            orders_of(users, amount_minor), metadata=TOKEN, timeout=10
        )
    assert all(result.HasField("order") for result in reply.results), reply
    return {result.order.order_id for result in reply.results}
