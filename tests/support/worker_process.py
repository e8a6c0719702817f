"""The shop's processes on databases, topics and groups of their own, and what tests do with them."""

import asyncio
import os
import signal
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
from eshop.contracts.services import GATEWAY, SERVICES
from eshop.contracts.topics import PARTITIONS
from eshop.kafka.topics import ensure_topics
from eshop.store.migrate import on_database
from tests.support.builders import new_database_url, new_id

ROOT = Path(__file__).parents[2]
TOKEN = credentials("development-service-token")
READY_SECONDS_MAX = 90
END_SECONDS_MAX = 30
TOPIC_SECONDS_MAX = 30


@dataclass(kw_only=True)
class WorkerProcess:
    """A process of the shop as its user starts it. After its end it may be started again, as it was.

    ``kind`` is the gateway, or a module of `eshop` with a Faust app. ``folder`` has its data and its log.
    """

    kind: str
    folder: Path
    settings: dict[str, str]
    web_port: int
    grpc_port: int | None = None
    host: str = "127.0.0.1"
    end_seconds_max: float = END_SECONDS_MAX
    process: asyncio.subprocess.Process | None = field(default=None, init=False)
    _log_begin: int = field(default=0, init=False)

    @property
    def url(self) -> str:
        """The address of its HTTP server."""
        return f"http://{self.host}:{self.web_port}"

    @property
    def grpc_address(self) -> str:
        """The address of its gRPC server."""
        return f"{self.host}:{self.grpc_port}"

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self.process is not None and self.process.returncode is None

    @property
    def log_file(self) -> Path:
        """The log of all its starts."""
        return self.folder / f"{self.kind}-{self.host}-{self.web_port}.log"

    @property
    def log(self) -> str:
        """The log since its last start."""
        return self.log_file.read_bytes()[self._log_begin :].decode(errors="replace")

    @property
    def end_of_log(self) -> str:
        """The last lines of the log."""
        return self.log[-3_000:]

    def environment(self) -> dict[str, str]:
        """Return this process's variables, with its settings."""
        listening = {"ESHOP_WEB_LISTEN": f"{self.host}:{self.web_port}"}
        if self.grpc_port is not None:
            listening["ESHOP_GRPC_LISTEN"] = self.grpc_address
        return os.environ | self.settings | listening | {"ESHOP_DATA": str(self.folder)}

    async def start(self, *options: str, app: str = "", sources: Path | str = ROOT, **more: str) -> None:
        """Start it, perhaps with options of Faust, another app, other sources, or more variables."""
        faust = ("faust", "-A", app or f"eshop.{self.kind}", *options, "worker", "-l", "info")
        words = ("gateway",) if self.kind == GATEWAY else faust
        with self.log_file.open("ab") as output:
            self._log_begin = output.tell()
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", *words),
                env=self.environment() | more,
                cwd=sources,
                stdout=output,
                stderr=output,
            )

    async def run(self, **more: str) -> None:
        """Start it, and wait until it is ready."""
        await self.start(**more)
        await self.until_ready()

    async def until_ready(self, path: str = "/health/ready") -> None:
        """Wait until it says that it is ready; fail with its log if it ends."""
        async with asyncio.timeout(READY_SECONDS_MAX), aiohttp.ClientSession() as http:
            while True:
                assert self.is_running, self.end_of_log
                try:
                    async with http.get(self.url + path) as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.1)

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    async def ends(self) -> int:
        """Wait for its end, and return how it ended."""
        assert self.process is not None
        async with asyncio.timeout(self.end_seconds_max):
            return await self.process.wait()

    async def leave(self) -> int:
        """Ask it to leave, as supervisors do, if it runs; return how it ended."""
        if self.is_running:
            self.send_signal(signal.SIGTERM)
        return await self.ends()

    async def stop(self) -> None:
        """Ask it to leave, and see that it has run until then and leaves cleanly."""
        assert self.is_running, self.end_of_log
        assert await self.leave() == 0, self.end_of_log

    async def kill(self) -> None:
        """Kill it, if it runs."""
        if self.process is not None and self.is_running:
            self.process.kill()
            await self.process.wait()


def own_names(kafka: str, prefix: str) -> dict[str, str]:
    """Return the settings of processes whose topics and groups on the broker are a test's own."""
    return {"ESHOP_KAFKA": kafka, "ESHOP_TOPIC_PREFIX": prefix, "ESHOP_GROUP_SUFFIX": f"-{prefix}"}


def own_database(admin_url: str, url: str) -> dict[str, str]:
    """Return the settings of a service whose database is a test's own."""
    return {"ESHOP_ADMIN_DATABASE_URL": admin_url, "ESHOP_DATABASE_URL": url}


@dataclass
class World:
    """Databases, topics and a group of the test's own."""

    cluster: EmbeddedCluster
    folder: Path
    name: str = field(default_factory=lambda: f"u{uuid.uuid4().hex[:8]}.")
    taken: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        admin_url = self.cluster.postgres_admin_url
        self.urls = {service: new_database_url(admin_url, service) for service in SERVICES}

    def process(
        self, service: str, kind: str | None = None, *, host: str = "127.0.0.1", web_port: int | None = None
    ) -> WorkerProcess:
        """Return a worker of a service, or a process of another kind with its settings; it is not started."""
        database = own_database(self.cluster.postgres_admin_url, self.urls[service])
        return WorkerProcess(
            kind=kind or service,
            folder=self.folder,
            settings=own_names(self.cluster.kafka, self.name) | database,
            web_port=web_port or free_port(self.taken),
            grpc_port=free_port(self.taken),
            host=host,
        )

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
        worker = self.process(service)
        try:
            await worker.start(sources=sources, ESHOP_ORDER_DEADLINE_SECONDS=str(deadline_seconds))
            await worker.until_ready()
            yield worker.grpc_address
            assert worker.is_running, worker.end_of_log
        finally:
            await worker.leave()


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
