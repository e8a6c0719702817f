"""A shop with a history and no worker, which tests of the audit may damage and mend."""

import asyncio
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg2
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from psycopg2.extras import NamedTupleCursor

from eshop.audit.audit import Wanted, audit
from eshop.audit.databases import Snapshot
from eshop.audit.findings import Report
from eshop.audit.sources import Sources
from eshop.contracts.messages import Message, Origin, decode
from eshop.contracts.topics import ORDERS_EVENTS, PAYMENTS_EVENTS
from eshop.handlers.orders import Placed, place_orders, record_outcomes, request_cancellation
from eshop.handlers.payments import Request, open_account, settle_orders, top_up_account
from eshop.kafka.topics import ensure_topics
from eshop.relay.publisher import Publisher
from eshop.relay.relay import Relay
from eshop.settings import Settings
from eshop.store.database import Database
from eshop.store.migrate import migrate, on_database
from eshop.store.outbox import read_unsent
from eshop.store.unit_of_work import OrdersUnitOfWork, PaymentsUnitOfWork, Store
from tests.support.builders import CAUSE, new_database_url, new_id, place_order

WAIT_SECONDS = 30
DEADLINE_SECONDS = 3_600
LOOK_SECONDS = 0.02
_AGES = """
SELECT extract(epoch FROM clock_timestamp() - xact_start) FROM pg_stat_activity
WHERE application_name = 'eshop-audit' AND backend_xmin IS NOT NULL
"""


class Silent:
    """Shows nothing of an audit's work."""

    def step(self, _name: str, _total: int | None) -> Callable[[int], None]:
        return lambda _count: None


@dataclass
class World:
    """Databases, topics and groups of its own. ``orders`` names one order by what became of it."""

    admin_url: str
    kafka: str
    settings: Settings
    urls: dict[str, str]
    orders: dict[str, str] = field(default_factory=dict)

    @property
    def sources(self) -> Sources:
        return Sources(self.urls["orders"], self.urls["payments"], self.kafka, self.settings)

    def audit(self, **options: Any) -> Report:
        """Audit once, without waiting for rest."""
        return asyncio.run(audit(replace(Wanted(self.sources, Silent(), settle_seconds=0), **options)))

    def sql(self, service: str, *statements: str, **parameters: object) -> list[Any]:
        """Run statements as the superuser, with foreign keys off; return the rows of the last."""
        connection = psycopg2.connect(
            on_database(self.admin_url, self.urls[service]), cursor_factory=NamedTupleCursor
        )
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute("SET session_replication_role = replica")
                for statement in statements:
                    cursor.execute(statement, parameters)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()

    @contextmanager
    def damaged(self, service: str, *statements: str, **parameters: object) -> Iterator[None]:
        """Do damage, and take it back."""
        found = self.sql(service, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        tables = [row.tablename for row in found]
        self.sql(service, "CREATE SCHEMA kept", *(f"CREATE TABLE kept.{t} AS TABLE {t}" for t in tables))
        try:
            self.sql(service, *statements, **parameters)
            yield
        finally:
            put_back = [f"INSERT INTO {t} OVERRIDING SYSTEM VALUE TABLE kept.{t}" for t in tables]
            self.sql(service, f"TRUNCATE {', '.join(tables)}", *put_back, "DROP SCHEMA kept CASCADE")


@contextmanager
def oldest_snapshot(admin_url: str) -> Iterator[list[float]]:
    """Watch how many seconds the oldest snapshot of an audit on the server is old, until the block ends."""
    ages: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        connection = psycopg2.connect(admin_url)
        connection.autocommit = True
        with connection.cursor() as cursor:
            while not ended.wait(LOOK_SECONDS):
                cursor.execute(_AGES)
                ages.extend(float(age) for (age,) in cursor.fetchall())
        connection.close()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield ages
    finally:
        ended.set()
        watcher.join()


def slow_down(monkeypatch: pytest.MonkeyPatch, *, seconds: float, rows: int) -> None:
    """Have an audit read pages of a number of rows, and wait before each statement."""
    read = Snapshot.rows

    def rows_late(self: Snapshot, *arguments: Any, **options: Any) -> list[Any]:
        time.sleep(seconds)
        return read(self, *arguments, **options)

    monkeypatch.setattr(Snapshot, "rows", rows_late)
    monkeypatch.setattr("eshop.audit.databases.PAGE_ROWS", rows)
    monkeypatch.setattr("eshop.audit.broker.PAGE_RECORDS", rows)


def make_world(admin_url: str, kafka: str, questions: int = 1) -> World:
    """Make a shop in which one order each was paid, refunded, refused, and decided last.

    The refund is requested a number of times before it is decided.
    """
    name = f"t{uuid.uuid4().hex[:8]}"
    settings = Settings(topic_prefix=f"{name}.", group_suffix=f"-{name}")
    urls = {service: new_database_url(admin_url, service) for service in ("orders", "payments")}
    world = World(admin_url, kafka, settings, urls)
    for service, url in urls.items():
        migrate(service, url, admin_url)
    asyncio.run(_Life(world).live(questions))
    return world


class _Life:
    """What happens in a world: its customers by the real handlers, its messages by the real relay."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._orders = Store(Database(world.urls["orders"], "eshop-test"), OrdersUnitOfWork)
        self._payments = Store(Database(world.urls["payments"], "eshop-test"), PaymentsUnitOfWork)
        self._read: dict[TopicPartition, int] = {}

    async def live(self, questions: int) -> None:
        await ensure_topics(self._world.kafka, self._world.settings.topic_prefix)
        await self._orders.database.open()
        await self._payments.database.open()
        try:
            await self._open_accounts()
            paid, _, refunded, refused, last = await self._place()
            await self._until_rest()
            for _ in range(questions):
                await self._orders.transact(lambda uow: request_cancellation(uow, "ann", refunded, CAUSE))
            await self._until_rest()
            self._repeat()
            await self._until_rest()
            self._world.orders |= {"paid": paid, "refunded": refunded, "refused": refused, "last": last}
            await self._commit()
        finally:
            await self._orders.database.close()
            await self._payments.database.close()

    async def _open_accounts(self) -> None:
        for user_id, amount_minor in (("ann", 1_000), ("bob", 3), ("dee", 50)):
            request = Request(user_id, CAUSE)
            await self._payments.transact(lambda uow, r=request: open_account(uow, r, "USD"))  # type: ignore[misc]
            await self._payments.transact(
                lambda uow, r=request, a=amount_minor: top_up_account(  # type: ignore[misc]
                    uow, r, a, transfer_id=new_id(), reference=None
                )
            )

    async def _place(self) -> list[str]:
        ann = [place_order("ann", 100, key=f"key-{number}") for number in range(3)]
        requests = [*ann, place_order("bob", 5), place_order("dee", 20)]
        placed = await self._orders.transact(lambda uow: place_orders(uow, requests, DEADLINE_SECONDS))
        return [answer.order.order.order_id for answer in placed if isinstance(answer, Placed)]

    def _repeat(self) -> None:
        """Have a message of each outbox be published twice, as by a relay that dies before it marks."""
        for service in ("orders", "payments"):
            self._world.sql(
                service,
                "UPDATE outbox SET sent_at = NULL, sent_partition = NULL, sent_offset = NULL"
                " WHERE outbox_id = (SELECT min(outbox_id) FROM outbox)",
            )

    async def _until_rest(self) -> None:
        """Publish and handle until nothing is left to do."""
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                await self._publish(self._orders)
                await self._publish(self._payments)
                orders = await self._consume(self._payments, ORDERS_EVENTS.name, settle_orders)
                payments = await self._consume(self._orders, PAYMENTS_EVENTS.name, record_outcomes)
                if not orders + payments:
                    return

    async def _publish(self, store: Store[Any]) -> None:
        publisher = Publisher(self._world.kafka, self._world.settings.topic_prefix)
        relay = Relay(store.database, store.notifier, publisher, "test")
        task = asyncio.create_task(relay.run())
        while await store.database.transact(lambda session: read_unsent(session, 1)):
            await asyncio.sleep(0.02)
        relay.stop()
        await task

    async def _consume(self, store: Store[Any], name: str, handler: Callable[..., Any]) -> int:
        messages = await self._new_messages(self._world.settings.topic(name))
        if messages:
            await store.transact(lambda uow: handler(uow, messages))
        return len(messages)

    async def _new_messages(self, topic: str) -> list[Message]:
        consumer = AIOKafkaConsumer(bootstrap_servers=self._world.kafka)
        await consumer.start()
        try:
            partitions = [TopicPartition(topic, number) for number in range(ORDERS_EVENTS.partitions)]
            consumer.assign(partitions)
            messages = []
            for partition, end in (await consumer.end_offsets(partitions)).items():
                consumer.seek(partition, self._read.get(partition, 0))
                while await consumer.position(partition) < end:
                    record = await consumer.getone(partition)
                    origin = Origin(record.topic, record.partition, record.offset)
                    messages.append(decode(origin, record.key, record.value, record.headers))
                self._read[partition] = end
            return messages
        finally:
            await consumer.stop()

    async def _commit(self) -> None:
        """Have both groups, and both watermarks, at the ends of the logs, as workers would."""
        for (group, topic), service in zip(self._world.sources.groups(), ("orders", "payments"), strict=True):
            ends = {partition: end for partition, end in self._read.items() if partition.topic == topic}
            self._world.sql(service, _watermarks(service, ends))
            consumer = AIOKafkaConsumer(
                bootstrap_servers=self._world.kafka, group_id=group, enable_auto_commit=False
            )
            await consumer.start()
            consumer.assign(list(ends))
            await consumer.commit(ends)
            await consumer.stop()


def _watermarks(consumer: str, ends: dict[TopicPartition, int]) -> str:
    rows: Sequence[str] = [f"('{consumer}', '{tp.topic}', {tp.partition}, {end})" for tp, end in ends.items()]
    return f"INSERT INTO watermarks VALUES {', '.join(rows)} ON CONFLICT DO NOTHING"
