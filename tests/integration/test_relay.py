"""The relay on a real Kafka and Postgres: everything, in order per user, by one process at a time."""

import asyncio
import random
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import psycopg2.errors
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaTimeoutError

from eshop.cluster.embedded import EmbeddedCluster
from eshop.contracts.messages import Message, Origin, decode
from eshop.contracts.topics import ORDERS_EVENTS
from eshop.handlers.announce import Cause
from eshop.handlers.orders import place_orders
from eshop.kafka.topics import ensure_topics
from eshop.relay import backlog
from eshop.relay.publisher import Publisher
from eshop.relay.relay import LEASE_SECONDS, Relay
from eshop.store.lease import take_lease
from eshop.store.outbox import read_unsent
from eshop.store.unit_of_work import OrdersUnitOfWork, Store
from tests.support.builders import place_order

Orders = Store[OrdersUnitOfWork]
WAIT_SECONDS = 30


@asynccontextmanager
async def relaying(orders: Orders, kafka: str, prefix: str, holder: str = "here") -> AsyncIterator[Relay]:
    """Run a relay."""
    relay = Relay(orders.database, orders.notifier, Publisher(kafka, prefix), holder)
    task = asyncio.create_task(relay.run())
    try:
        yield relay
    finally:
        relay.stop()
        await task


async def topic_prefix(kafka: str) -> str:
    """Make topics of the test's own."""
    prefix = f"t{uuid.uuid4().hex[:8]}."
    await ensure_topics(kafka, prefix)
    return prefix


async def read(kafka: str, topic: str, count: int) -> list[Message]:
    """Read a topic from its start until ``count`` messages are there."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, number) for number in range(ORDERS_EVENTS.partitions)])
        messages: list[Message] = []
        async with asyncio.timeout(WAIT_SECONDS):
            while len(messages) < count:
                record = await consumer.getone()
                origin = Origin(record.topic, record.partition, record.offset)
                messages.append(decode(origin, record.key, record.value, record.headers))
        return messages
    finally:
        await consumer.stop()


async def log_ends(kafka: str, topic: str) -> int:
    """Return how many messages the topic's partitions have."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(ORDERS_EVENTS.partitions)]
        return sum((await consumer.end_offsets(partitions)).values())
    finally:
        await consumer.stop()


async def until_active(relay: Relay, active: bool = True) -> None:
    """Return when the relay has, or no longer has, the lease."""
    async with asyncio.timeout(WAIT_SECONDS):
        while relay.is_active is not active:
            await asyncio.sleep(0.02)


async def until_all_sent(orders: Orders) -> None:
    """Return when the outbox has nothing unsent."""
    async with asyncio.timeout(WAIT_SECONDS):
        while await orders.database.transact(lambda session: read_unsent(session, 1)):
            await asyncio.sleep(0.02)


async def test_everything_is_published_in_order_per_user_and_marked(
    cluster: EmbeddedCluster, orders: Orders
) -> None:
    prefix = await topic_prefix(cluster.kafka)
    async with relaying(orders, cluster.kafka, prefix):
        for _ in range(10):
            batch = [place_order(f"user-{number % 7}") for number in range(50)]
            await orders.transact(lambda uow, batch=batch: place_orders(uow, batch, 60))  # type: ignore[misc]
        messages = await read(cluster.kafka, prefix + ORDERS_EVENTS.name, 500)
        await until_all_sent(orders)
    numbers: dict[str, list[int]] = defaultdict(list)
    partitions: dict[str, set[int]] = defaultdict(set)
    for message in messages:
        numbers[message.user_id].append(message.body.feed_number)  # type: ignore[attr-defined]
        partitions[message.user_id].add(message.origin.partition)
    assert all(seen == list(range(1, len(seen) + 1)) for seen in numbers.values())
    assert all(len(used) == 1 for used in partitions.values())
    rows = await orders.database.transact(
        lambda session: session.run_sql("SELECT message_id, sent_partition, sent_offset FROM outbox")
    )
    assert {(row.message_id, row.sent_partition, row.sent_offset) for row in rows} == {
        (m.message_id, m.origin.partition, m.origin.offset) for m in messages
    }


async def test_message_that_commits_after_later_ones_is_published_too(
    cluster: EmbeddedCluster, orders: Orders
) -> None:
    prefix = await topic_prefix(cluster.kafka)
    written, overtaken = asyncio.Event(), asyncio.Event()

    async def slowly(uow: OrdersUnitOfWork) -> None:
        await place_orders(uow, [place_order("slow")], 60)
        written.set()
        await overtaken.wait()

    async with relaying(orders, cluster.kafka, prefix):
        slow = asyncio.create_task(orders.transact(slowly))
        await written.wait()
        await orders.transact(lambda uow: place_orders(uow, [place_order("fast")], 60))
        await read(cluster.kafka, prefix + ORDERS_EVENTS.name, 1)
        await until_all_sent(orders)
        overtaken.set()
        await slow
        messages = await read(cluster.kafka, prefix + ORDERS_EVENTS.name, 2)
    assert {message.user_id for message in messages} == {"fast", "slow"}


async def test_users_messages_keep_their_order_through_errors_and_new_producers(
    cluster: EmbeddedCluster, orders: Orders, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = await topic_prefix(cluster.kafka)
    monkeypatch.setattr(backlog, "BACKOFF_SECONDS_MAX", backlog.BACKOFF_SECONDS)
    send, chance = AIOKafkaProducer.send_batch, random.Random(7)

    async def send_or_fail(self: Any, *batch: Any, **where: Any) -> Any:
        if chance.random() < 0.3:
            raise KafkaTimeoutError  # nobody knows whether the broker has it
        delivered = await send(self, *batch, **where)
        if chance.random() < 0.3:
            await delivered
            raise KafkaTimeoutError  # the broker has it, and the answer is lost
        return delivered

    monkeypatch.setattr(AIOKafkaProducer, "send_batch", send_or_fail)
    count = 300
    async with relaying(orders, cluster.kafka, prefix):
        for start in range(0, count, 30):
            batch = [place_order(f"user-{number % 7}") for number in range(start, start + 30)]
            await orders.transact(lambda uow, batch=batch: place_orders(uow, batch, 60))  # type: ignore[misc]
        await until_all_sent(orders)
    ends = await log_ends(cluster.kafka, prefix + ORDERS_EVENTS.name)
    assert ends > count, "nothing was published twice"
    first: dict[str, list[int]] = defaultdict(list)
    for message in await read(cluster.kafka, prefix + ORDERS_EVENTS.name, ends):
        seq: int = message.body.feed_number  # type: ignore[attr-defined]
        if seq not in first[message.user_id]:
            first[message.user_id].append(seq)
    assert all(seen == list(range(1, len(seen) + 1)) for seen in first.values())
    assert sum(map(len, first.values())) == count


async def test_commit_in_another_process_wakes_the_relay(cluster: EmbeddedCluster, orders: Orders) -> None:
    prefix = await topic_prefix(cluster.kafka)
    elsewhere = Store(orders.database, OrdersUnitOfWork)  # its own notifier, as in another process
    async with relaying(orders, cluster.kafka, prefix):
        await elsewhere.transact(lambda uow: place_orders(uow, [place_order("ann")], 60))
        await until_all_sent(orders)


async def test_second_relay_waits_and_takes_over_when_the_first_leaves(
    cluster: EmbeddedCluster, orders: Orders
) -> None:
    prefix = await topic_prefix(cluster.kafka)
    async with relaying(orders, cluster.kafka, prefix, "second") as second:
        await until_active(second)
        async with relaying(orders, cluster.kafka, prefix, "third") as third:
            await orders.transact(lambda uow: place_orders(uow, [place_order("ann")], 60))
            await until_all_sent(orders)
            assert not third.is_active
            second.stop()
            await until_active(third)
            await orders.transact(lambda uow: place_orders(uow, [place_order("ann")], 60))
            await until_all_sent(orders)


async def test_relay_whose_lease_was_taken_marks_nothing_and_loses_nothing(
    cluster: EmbeddedCluster, orders: Orders
) -> None:
    prefix = await topic_prefix(cluster.kafka)
    async with relaying(orders, cluster.kafka, prefix) as relay:
        await until_active(relay)
        await orders.database.transact(
            lambda session: session.run_sql("UPDATE relay_lease SET expires_at = '-infinity'")
        )
        assert await orders.database.transact(lambda session: take_lease(session, "other", 3.0))
        await orders.transact(lambda uow: place_orders(uow, [place_order("ann")], 60))
        await until_active(relay, False)
        assert await orders.database.transact(lambda session: read_unsent(session, 1))
        await until_all_sent(orders)  # once the other one's lease has expired


async def test_message_that_the_broker_would_refuse_never_gets_into_the_outbox(orders: Orders) -> None:
    request = replace(place_order("ann"), cause=Cause("c" * 2_000_000, "causation"))
    with pytest.raises(psycopg2.errors.CheckViolation):
        await orders.transact(lambda uow: place_orders(uow, [request], 60))


async def test_producer_that_does_not_stop_cleanly_is_dropped_all_the_same(
    cluster: EmbeddedCluster, orders: Orders, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = await topic_prefix(cluster.kafka)
    publisher = Publisher(cluster.kafka, prefix)
    await orders.transact(lambda uow: place_orders(uow, [place_order("ann")], 60))
    (row,) = await orders.database.transact(lambda session: read_unsent(session, 1))
    await publisher.start()
    assert publisher._producer is not None
    stop = publisher._producer.stop

    async def fail() -> None:
        await stop()
        raise RuntimeError("on purpose")

    monkeypatch.setattr(publisher._producer, "stop", fail)
    await publisher.reset()
    await publisher.start()
    sent, error = await publisher.publish(ORDERS_EVENTS.name, 0, [row])
    assert (len(sent), error) == (1, None)
    await publisher.reset()


async def test_relay_that_may_not_read_for_a_while_goes_on_when_it_may(
    cluster: EmbeddedCluster, orders: Orders
) -> None:
    prefix = await topic_prefix(cluster.kafka)
    role = urlsplit(orders.database.url).username
    server = urlsplit(cluster.postgres_admin_url)._replace(path=urlsplit(orders.database.url).path)

    def as_superuser(sql: str) -> None:
        connection = psycopg2.connect(server.geturl())
        with connection, connection.cursor() as cursor:
            cursor.execute(sql)
        connection.close()

    async with relaying(orders, cluster.kafka, prefix) as relay:
        await until_active(relay)
        for table, right in (("outbox", "UPDATE"), ("relay_lease", "UPDATE")):
            await asyncio.to_thread(as_superuser, f"REVOKE {right} ON {table} FROM {role}")
            await orders.transact(lambda uow: place_orders(uow, [place_order("ann")], 60))
            await asyncio.sleep(LEASE_SECONDS + 1)
            await asyncio.to_thread(as_superuser, f"GRANT {right} ON {table} TO {role}")
            await until_all_sent(orders)
