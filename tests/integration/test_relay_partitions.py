"""What can't be written holds up nobody else: topics that are gone, partitions that refuse, large rows."""

import asyncio
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg2
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import MessageSizeTooLargeError

from eshop.cluster.embedded import EmbeddedCluster
from eshop.contracts.topics import ORDERS_DEAD_LETTERS, ORDERS_EVENTS, PARTITIONS
from eshop.handlers.orders import place_orders
from eshop.kafka.topics import TopicMismatch, ensure_topics
from eshop.relay import depth
from eshop.relay.backlog import ROWS_MAX
from eshop.relay.placement import partition_of
from eshop.relay.publisher import Publisher
from eshop.relay.relay import Relay
from eshop.store.outbox import Outgoing
from eshop.store.unit_of_work import OrdersUnitOfWork, Store
from tests.support.builders import place_order

Orders = Store[OrdersUnitOfWork]
WAIT_SECONDS = 60
EVENTS, LETTERS = ORDERS_EVENTS.name, ORDERS_DEAD_LETTERS.name


@asynccontextmanager
async def relaying(orders: Orders, kafka: str, prefix: str) -> AsyncIterator[Relay]:
    """Run a relay."""
    relay = Relay(orders.database, orders.notifier, Publisher(kafka, prefix), "here")
    task = asyncio.create_task(relay.run())
    try:
        yield relay
    finally:
        relay.stop()
        await task


@asynccontextmanager
async def admin_of(kafka: str) -> AsyncIterator[AIOKafkaAdminClient]:
    """Administer the broker."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


@pytest.fixture
async def prefix(cluster: EmbeddedCluster) -> str:
    """Make topics of the test's own."""
    name = f"t{uuid.uuid4().hex[:8]}."
    await ensure_topics(cluster.kafka, name)
    return name


async def configure(kafka: str, topic: str, **config: str) -> None:
    """Change settings of a topic."""
    async with admin_of(kafka) as admin:
        configs = {name.replace("_", "."): value for name, value in config.items()}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs)])


async def until_refused(kafka: str, topic: str, size: int) -> None:
    """Return when the broker refuses messages of a size: it learns of a setting a moment later."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                await producer.send_and_wait(topic, b"x" * size)
    except MessageSizeTooLargeError:
        return
    finally:
        await producer.stop()


async def write(orders: Orders, topic: str, users: Sequence[str], body: str = "{}") -> None:
    """Append a message to the outbox for each user, in order."""
    rows = [Outgoing(topic, user, "Type", "eshop/orders", "schema", body, "c", "c", "") for user in users]

    async def append(uow: OrdersUnitOfWork) -> None:
        await uow.outbox.append(rows)

    await orders.transact(append)


async def until_sent(orders: Orders, topic: str, count: int) -> int:
    """Return when a number of messages of a topic are marked; return how many of all are not."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            (row,) = await orders.database.transact(
                lambda session: session.run_sql(
                    "SELECT count(*) FILTER (WHERE topic = %(topic)s AND sent_at IS NOT NULL) AS sent,"
                    " count(*) FILTER (WHERE sent_at IS NULL) AS unsent FROM outbox",
                    {"topic": topic},
                )
            )
            if row.sent >= count:
                return int(row.unsent)
            await asyncio.sleep(0.02)


async def must_be_in_order(kafka: str, prefix: str, topic: str, orders: Orders) -> None:
    """Check the log against the outbox: everything is there, each user's first occurrences in order."""
    rows = await orders.database.transact(
        lambda session: session.run_sql(
            "SELECT user_id, message_id, sent_partition FROM outbox WHERE topic = %(topic)s"
            " ORDER BY outbox_id",
            {"topic": topic},
        )
    )
    expected: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        expected[row.user_id].append(row.message_id)
        assert row.sent_partition == partition_of(topic, row.user_id)
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, auto_offset_reset="earliest")
    await consumer.start()
    found: dict[str, list[str]] = defaultdict(list)
    try:
        partitions = [TopicPartition(prefix + topic, number) for number in range(PARTITIONS)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        async with asyncio.timeout(WAIT_SECONDS):
            for _ in range(sum(ends.values())):
                record = await consumer.getone()
                if record.key is None:
                    continue  # by ``until_refused``
                user, message_id = record.key.decode(), dict(record.headers)["ce_id"].decode()
                if message_id not in found[user]:
                    found[user].append(message_id)
    finally:
        await consumer.stop()
    assert found == expected


async def until_gone(kafka: str, topic: str) -> None:
    """Return when the broker shows a topic no more."""
    async with admin_of(kafka) as admin, asyncio.timeout(WAIT_SECONDS):
        await admin.delete_topics([topic])
        while topic in await admin.list_topics():
            await asyncio.sleep(0.05)


async def test_topic_that_is_gone_holds_up_no_other_and_is_made_again(
    cluster: EmbeddedCluster, orders: Orders, prefix: str
) -> None:
    await until_gone(cluster.kafka, prefix + LETTERS)
    await write(orders, LETTERS, ["ann"])
    await write(orders, EVENTS, [f"user-{number}" for number in range(20)])
    async with relaying(orders, cluster.kafka, prefix):
        assert await until_sent(orders, EVENTS, 20) == 1, "its topic is made after an attempt has failed"
        assert await until_sent(orders, LETTERS, 1) == 0
    await must_be_in_order(cluster.kafka, prefix, LETTERS, orders)


async def test_topic_that_goes_while_the_relay_runs_is_made_again(
    cluster: EmbeddedCluster, orders: Orders, prefix: str
) -> None:
    async with relaying(orders, cluster.kafka, prefix):
        await write(orders, LETTERS, ["ann"])
        await until_sent(orders, LETTERS, 1)
        await until_gone(cluster.kafka, prefix + LETTERS)
        await write(orders, LETTERS, ["ann", "bob"])
        assert await until_sent(orders, LETTERS, 3) == 0


@pytest.mark.parametrize("how", ["refused", "silent"])
async def test_partition_that_can_not_be_written_holds_up_no_other(
    cluster: EmbeddedCluster, orders: Orders, prefix: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    can_be_written, send = asyncio.Event(), AIOKafkaProducer.send_batch

    async def send_when_it_can_be(self: Any, batch: Any, topic: str, *, partition: int) -> Any:
        if topic == prefix + LETTERS:
            await can_be_written.wait()
        return await send(self, batch, topic, partition=partition)

    if how == "refused":
        await configure(cluster.kafka, prefix + LETTERS, max_message_bytes="1")
        await until_refused(cluster.kafka, prefix + LETTERS, 1)
    else:
        monkeypatch.setattr(AIOKafkaProducer, "send_batch", send_when_it_can_be)
    count = 2 * ROWS_MAX + 500
    for start in range(0, count, 500):
        await write(orders, LETTERS, ["ann"] * 500, body=str(start))
    await write(orders, EVENTS, [f"user-{number}" for number in range(20)])
    async with relaying(orders, cluster.kafka, prefix):
        assert await until_sent(orders, EVENTS, 20) == count
        await write(orders, LETTERS, ["ann", "bob"])
        await write(orders, EVENTS, [f"user-{number}" for number in range(20)])
        assert await until_sent(orders, EVENTS, 40) == count + 2
        await configure(cluster.kafka, prefix + LETTERS, max_message_bytes="1000000")
        can_be_written.set()
        assert await until_sent(orders, LETTERS, count + 2) == 0
    await must_be_in_order(cluster.kafka, prefix, LETTERS, orders)
    await must_be_in_order(cluster.kafka, prefix, EVENTS, orders)


async def test_batch_that_is_too_large_is_halved_and_a_row_that_is_blocks_its_partition_only(
    cluster: EmbeddedCluster, orders: Orders, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    await configure(cluster.kafka, prefix + EVENTS, max_message_bytes="20000")
    await until_refused(cluster.kafka, prefix + EVENTS, 25_000)
    await write(orders, EVENTS, ["ann"] * 100, body="x" * 1_000)
    async with relaying(orders, cluster.kafka, prefix):
        assert await until_sent(orders, EVENTS, 100) == 0
        await write(orders, EVENTS, ["ann"], body="x" * 30_000)
        await write(orders, EVENTS, ["ann"])
        assert partition_of(EVENTS, "bob") != partition_of(EVENTS, "ann")
        await write(orders, EVENTS, ["bob"] * 20)
        assert await until_sent(orders, EVENTS, 120) == 2
        async with asyncio.timeout(WAIT_SECONDS):
            while "is too large for the broker" not in caplog.text:
                await asyncio.sleep(0.02)
        await configure(cluster.kafka, prefix + EVENTS, max_message_bytes="100000")
        assert await until_sent(orders, EVENTS, 122) == 0
    await must_be_in_order(cluster.kafka, prefix, EVENTS, orders)


async def test_users_keep_their_partitions_when_a_topic_grows(
    cluster: EmbeddedCluster, orders: Orders, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    users = [f"user-{number}" for number in range(100)]
    async with relaying(orders, cluster.kafka, prefix):
        await write(orders, EVENTS, users)
        await until_sent(orders, EVENTS, len(users))
        async with admin_of(cluster.kafka) as admin:
            await admin.create_partitions({prefix + EVENTS: NewPartitions(PARTITIONS + 4)})
            while len((await admin.describe_topics([prefix + EVENTS]))[0]["partitions"]) == PARTITIONS:
                await asyncio.sleep(0.05)  # the broker shows it a moment after it says it is done
        await write(orders, EVENTS, users)
        await until_sent(orders, EVENTS, 2 * len(users))
    await ensure_topics(cluster.kafka, prefix)  # a worker starts
    assert caplog.text.count("has 16 partitions; messages go to the first 12") == 1
    async with relaying(orders, cluster.kafka, prefix):
        await write(orders, EVENTS, users)
        await until_sent(orders, EVENTS, 3 * len(users))
    await must_be_in_order(cluster.kafka, prefix, EVENTS, orders)


async def test_topic_with_fewer_partitions_is_refused(cluster: EmbeddedCluster) -> None:
    prefix = f"t{uuid.uuid4().hex[:8]}."
    async with admin_of(cluster.kafka) as admin:
        await admin.create_topics([NewTopic(prefix + EVENTS, PARTITIONS - 1, 1)])
    with pytest.raises(TopicMismatch, match="has 11 partitions, the catalogue says 12"):
        await ensure_topics(cluster.kafka, prefix)


async def test_poll_walks_no_dead_index_entries_while_a_snapshot_is_held(
    cluster: EmbeddedCluster, orders: Orders, prefix: str
) -> None:
    holder = await asyncio.to_thread(psycopg2.connect, orders.database.url)
    holder.set_session(isolation_level="REPEATABLE READ")
    with holder.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM outbox")  # from now on nothing that dies is cleaned up
    count = 6_000
    try:
        async with relaying(orders, cluster.kafka, prefix) as relay:
            for start in range(0, count, 500):
                await write(orders, EVENTS, [f"user-{number}" for number in range(start, start + 500)])
            await until_sent(orders, EVENTS, count)
            async with asyncio.timeout(WAIT_SECONDS):
                while relay._backlog.floor <= count:  # proven once the last transaction is over
                    await asyncio.sleep(0.02)
            walked, pages = await buffers(orders, relay._backlog.floor), await buffers(orders, 0)
            assert 10 * walked < pages
            await orders.transact(lambda uow: place_orders(uow, [place_order("ann")], 60))
            await until_sent(orders, EVENTS, count + 1)
    finally:
        holder.close()
    rows = await orders.database.transact(lambda session: session.run_sql("SELECT count(*) AS n FROM outbox"))
    assert rows[0].n == count + 1


async def buffers(orders: Orders, from_id: int) -> int:
    """Return how many pages a poll from an id on touches."""
    (row,) = await orders.database.transact(
        lambda session: session.run_sql(
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM outbox"
            " WHERE sent_at IS NULL AND outbox_id >= %(from_id)s ORDER BY outbox_id LIMIT 2000",
            {"from_id": from_id},
        )
    )
    plan = row[0][0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


async def test_transaction_that_is_open_holds_the_floor_and_its_messages_are_published(
    cluster: EmbeddedCluster, orders: Orders, prefix: str
) -> None:
    written, overtaken = asyncio.Event(), asyncio.Event()

    async def slowly(uow: OrdersUnitOfWork) -> None:
        await place_orders(uow, [place_order("slow")], 60)
        written.set()
        await overtaken.wait()

    async with relaying(orders, cluster.kafka, prefix) as relay:
        slow = asyncio.create_task(orders.transact(slowly))
        await written.wait()
        await write(orders, EVENTS, ["fast"] * 50)
        await until_sent(orders, EVENTS, 50)
        assert relay._backlog.floor == 0
        overtaken.set()
        await slow
        assert await until_sent(orders, EVENTS, 51) == 0
        await write(orders, EVENTS, ["fast"])
        await until_sent(orders, EVENTS, 52)
        async with asyncio.timeout(WAIT_SECONDS):
            while relay._backlog.floor <= 1:
                await asyncio.sleep(0.02)


async def test_message_put_back_below_the_floor_is_found(
    cluster: EmbeddedCluster, orders: Orders, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eshop.relay.relay.CHECK_SECONDS", 0.1)
    async with relaying(orders, cluster.kafka, prefix) as relay:
        await write(orders, EVENTS, ["ann"])
        await until_sent(orders, EVENTS, 1)
        async with asyncio.timeout(WAIT_SECONDS):
            while relay._backlog.floor <= 1:
                await asyncio.sleep(0.02)
        await orders.database.transact(
            lambda session: session.run_sql(
                "UPDATE outbox SET sent_at = NULL, sent_partition = NULL, sent_offset = NULL"
            )
        )
        await until_sent(orders, EVENTS, 1)


async def test_depth_and_age_of_the_outbox_come_from_the_table(
    orders: Orders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody publishes here: no relay's round ever begins."""

    async def measured() -> tuple[float, float]:
        await depth.measure_outbox(orders.database)
        return depth._unsent._value.get(), depth._oldest._value.get()

    assert await measured() == (0, 0)
    await write(orders, EVENTS, ["ann"] * 5)
    count, age = await measured()
    _, later = await measured()
    assert count == 5
    assert 0 < age < later, "it grows while nothing happens"
    monkeypatch.setattr(depth, "MESSAGES_MAX", 3)
    assert (await measured())[0] == 3
