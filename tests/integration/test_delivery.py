"""A real payments worker: poison is parked, faults are waited for, what was passed over is read again."""

import asyncio
import re
import signal
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import aiohttp
import psycopg2
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import RecordsToDelete
from aiokafka.partitioner import DefaultPartitioner
from grpc import aio

from eshop.clients.channel import credentials, open_channel
from eshop.cluster.embedded import EmbeddedCluster
from eshop.cluster.ports import free_port
from eshop.contracts.bodies import Body
from eshop.contracts.messages import encode
from eshop.contracts.proto.payments_v1_pb2 import OpenAccountRequest, TopUpRequest
from eshop.contracts.proto.payments_v1_pb2_grpc import PaymentsStub
from eshop.contracts.proto.shared_v1_pb2 import RequestContext
from eshop.contracts.topics import ORDERS_EVENTS
from eshop.handlers.parking import BURST_MAX
from eshop.kafka.topics import ensure_topics
from eshop.process.exit import EXIT_CODE
from tests.support.builders import Partition, new_database_url, order_created
from tests.support.worker_process import (
    WorkerProcess,
    an_admin,
    commit_when_empty,
    own_database,
    own_names,
    recreate_topic,
)

WAIT_SECONDS_MAX = 30
#: Far less than the watchdog waits before it helps.
NEXT_FETCH_SECONDS = 25
#: Longer than a session and a lease.
AWAY_SECONDS = 12
#: What Faust writes when a worker has got its partitions.
ASSIGNED = "Executing _on_partitions_assigned"
Headers = list[tuple[str, bytes]]


@dataclass(kw_only=True)
class Bench(WorkerProcess):
    """A payments worker with its surroundings: topics, a group, a database and ports of its own."""

    cluster: EmbeddedCluster
    name: str
    database_url: str
    producer: AIOKafkaProducer

    @property
    def topic(self) -> str:
        return f"{self.name}{ORDERS_EVENTS.name}"

    async def settle_first(self) -> TopicPartition:
        """Run, have one order handled and committed, and return its partition."""
        await self.run()
        partition = await self.put(order_created("ann", 5))
        await self.until_settled(1)
        await self.until_committed(partition, 1)
        return partition

    async def metric(self, name: str) -> float:
        """Return the value of a metric that has one."""
        async with aiohttp.ClientSession() as http, http.get(f"{self.url}/metrics") as answer:
            (value,) = re.findall(rf"^{name}(?:\{{.*\}})? (.+)$", await answer.text(), re.MULTILINE)
            return float(value)

    async def until_logged(self, text: str, times: int = 1) -> None:
        """Wait until the log has the text a number of times."""
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            while self.log.count(text) < times:
                await asyncio.sleep(0.05)

    def sql(self, statement: str) -> list[Any]:
        """Look into the worker's database, or change it, as its superuser."""
        url = urlsplit(self.cluster.postgres_admin_url)._replace(path=urlsplit(self.database_url).path)
        connection = psycopg2.connect(url.geturl())
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(statement)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()

    async def put(self, body: Body) -> TopicPartition:
        """Publish a message as the relay does, and return where it went."""
        return (await self.put_raw(body.user_id.encode(), encode(body), headers_of(body)))[0]

    async def put_raw(
        self, key: bytes, value: bytes | None, headers: Headers, partition: int | None = None
    ) -> tuple[TopicPartition, int]:
        """Publish anything, and return where it is."""
        sent = await self.producer.send_and_wait(self.topic, value, key, partition, headers=headers)
        return TopicPartition(self.topic, sent.partition), sent.offset

    def partition_of(self, user_id: str) -> int:
        """Return the partition of the user's messages."""
        partitions = list(range(ORDERS_EVENTS.partitions))
        return int(DefaultPartitioner()(user_id.encode(), partitions, partitions))

    async def drop_before(self, partition: TopicPartition, offset: int) -> None:
        """Have the broker drop the partition's first messages, as its retention does."""
        async with an_admin(self.cluster.kafka) as admin:
            await admin.delete_records({partition: RecordsToDelete(before_offset=offset)})

    async def until_settled(self, count: int, seconds_max: float = WAIT_SECONDS_MAX) -> None:
        """Wait until a number of orders have a payment, and no more."""
        async with asyncio.timeout(seconds_max):
            while (settled := self.sql("SELECT count(*) FROM payments")[0][0]) < count:
                await asyncio.sleep(0.05)
        assert settled == count

    async def committed(self, partition: TopicPartition) -> int:
        """Return the group's committed offset."""
        async with self._in_group(partition) as consumer:
            return await consumer.committed(partition) or 0

    async def move(self, partition: TopicPartition, offset: int) -> None:
        """Set the group's committed offset by hand, as soon as the group has no member any more."""
        async with self._in_group(partition) as consumer, asyncio.timeout(WAIT_SECONDS_MAX):
            await commit_when_empty(consumer, {partition: offset})

    @asynccontextmanager
    async def _in_group(self, partition: TopicPartition) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.cluster.kafka,
            group_id=f"eshop-payments-{self.name}",
            enable_auto_commit=False,
        )
        await consumer.start()
        try:
            consumer.assign([partition])
            yield consumer
        finally:
            await consumer.stop()

    async def until_committed(self, partition: TopicPartition, offset: int) -> None:
        """Wait until the group has committed the offset."""
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            while await self.committed(partition) < offset:
                await asyncio.sleep(0.1)


def headers_of(body: Body, message_id: str | None = None) -> Headers:
    """Return the headers a relay gives a message."""
    envelope = Partition().message(body).envelope
    return replace(envelope, message_id=message_id or envelope.message_id).to_headers()


@pytest.fixture
async def bench(cluster: EmbeddedCluster, tmp_path: Path) -> AsyncIterator[Bench]:
    name = f"d{uuid.uuid4().hex[:8]}."
    await ensure_topics(cluster.kafka, name)
    taken: set[int] = set()
    producer = AIOKafkaProducer(bootstrap_servers=cluster.kafka, acks="all")
    await producer.start()
    url = new_database_url(cluster.postgres_admin_url, "payments")
    bench = Bench(
        kind="payments",
        folder=tmp_path,
        settings=own_names(cluster.kafka, name) | own_database(cluster.postgres_admin_url, url),
        web_port=free_port(taken),
        grpc_port=free_port(taken),
        cluster=cluster,
        name=name,
        database_url=url,
        producer=producer,
    )
    try:
        yield bench
    finally:
        await bench.kill()
        await producer.stop()


@asynccontextmanager
async def beside(bench: Bench, folder: Path) -> AsyncIterator[Bench]:
    """Yield the surroundings of one more worker in the group."""
    taken = {port for port in (bench.web_port, bench.grpc_port) if port}
    second = replace(bench, folder=folder / "second", web_port=free_port(taken), grpc_port=free_port(taken))
    second.folder.mkdir()
    try:
        yield second
    finally:
        await second.kill()


def bad_messages() -> dict[str, tuple[bytes | None, Headers]]:
    """Return values and headers that can never be read."""
    body = order_created("ann", 5)
    value, headers = encode(body), headers_of(body)
    return {
        "bad JSON": (b"{", headers_of(body)),
        "null value": (None, headers_of(body)),
        "missing header": (value, [pair for pair in headers if pair[0] != "ce_id"]),
        "no headers": (value, []),
        "unknown schema": (value, [*headers_of(body), ("ce_dataschema", b"eshop/orders/v99/OrderCreated")]),
        "NUL in a header": (value, [*headers_of(body), ("correlation_id", b"a\x00b")]),
        "1 MB": (b'"' + b"x" * 1_000_000 + b'"', headers_of(body)),
        "null header": (b"{", [*headers_of(body), ("note", None)]),  # type: ignore[list-item]
        "null id": (value, [*headers_of(body), ("ce_id", None)]),  # type: ignore[list-item]
        "huge number": (
            value.replace(b'"amount_minor":5', b'"amount_minor":' + b"9" * 400),
            headers_of(body),
        ),
    }


BAD = bad_messages()


async def test_messages_that_can_not_be_read_are_parked_and_the_others_go_on(bench: Bench) -> None:
    await bench.run()
    users = iter(f"user-{number}" for number in range(100))
    for value, headers in BAD.values():
        user = next(users)
        await bench.put(order_created(user, 5))
        await bench.put_raw(user.encode(), value, headers)
        await bench.put_raw(user.encode(), value, headers)  # without an id of its own it is another message
        await bench.put(order_created(user, 5))
    await bench.until_settled(2 * len(BAD))
    parked = bench.sql('SELECT topic, partition, "offset", cause, error, value, status FROM dead_letters')
    assert {row[3] for row in parked} == {"undecodable"}
    assert {row[6] for row in parked} == {"parked"}
    assert {None if row[5] is None else bytes(row[5]) for row in parked} == {
        value for value, _ in BAD.values()
    }
    assert bench.sql("SELECT count(*) FROM inbox JOIN dead_letters USING (message_id)")[0][0] == len(parked)
    announced = "SELECT count(*) FROM outbox WHERE type = 'eshop.payments.DeadLetterParked'"
    assert bench.sql(announced)[0][0] == len(parked)
    await bench.stop()


async def test_message_that_can_not_be_stored_is_parked_alone(bench: Bench) -> None:
    await bench.run()
    bench.sql("ALTER TABLE payments ADD CHECK (amount_minor <> 13)")
    bench.sql("INSERT INTO wallets (user_id, currency, balance_minor) VALUES ('ann', 'USD', 1000)")
    orders = [order_created("ann", amount) for amount in (5, 6, 13, 7, 8)]
    partition = await bench.put(orders[0])
    for order in orders[1:]:
        await bench.put(order)
    await bench.until_settled(4)
    parked = bench.sql("SELECT order_id::text, cause FROM dead_letters")
    assert parked == [(orders[2].order_id, "SQLSTATE 23514")]
    assert bench.sql("SELECT balance_minor FROM wallets") == [(1000 - 26,)]
    await bench.until_committed(partition, 5)
    await bench.stop()


async def test_burst_of_poison_stops_its_partition_and_no_other_until_somebody_has_looked(
    bench: Bench,
) -> None:
    await bench.run()
    for number in range(BURST_MAX + 1):
        await bench.put_raw(b"ann", b"bad %d" % number, headers_of(order_created("ann", 5)))
    ann = await bench.put(order_created("ann", 5))
    await bench.until_logged("see `eshop deadletters list`")
    assert await bench.metric("eshop_delivery_waiting") == 1
    other = next(u for u in (f"user-{n}" for n in range(100)) if bench.partition_of(u) != ann.partition)
    await bench.put(order_created(other, 5))
    await bench.until_settled(1)
    assert bench.sql("SELECT count(*) FROM dead_letters") == [(BURST_MAX,)]
    bench.sql("UPDATE dead_letters SET status = 'discarded', resolved_at = now()")
    await bench.until_settled(2)
    assert bench.sql("SELECT count(*) FROM dead_letters") == [(BURST_MAX + 1,)]
    assert await bench.metric("eshop_delivery_waiting") == 0
    await bench.stop()


async def test_types_that_only_newer_versions_know_are_claimed_counted_and_passed_over(bench: Bench) -> None:
    await bench.run()
    count = 2 * BURST_MAX
    body = order_created("ann", 5)
    for _ in range(count):
        headers = [
            *headers_of(body),
            ("ce_type", b"eshop.orders.OrderRenamed"),
            ("ce_dataschema", b"eshop/orders/v1/OrderRenamed"),
        ]
        await bench.put_raw(b"ann", b'{"user_id": "ann", "title": "lamp"}', headers)
    ann = await bench.put(body)
    await bench.until_settled(1)
    assert bench.sql("SELECT count(*) FROM dead_letters") == [(0,)]
    assert bench.sql("SELECT count(*) FROM inbox") == [(count + 1,)]
    assert await bench.metric("eshop_messages_unknown_type_total") == count
    await bench.until_committed(ann, count + 1)
    await bench.stop()


async def test_offsets_moved_ahead_are_noticed_and_nothing_is_passed_over(bench: Bench) -> None:
    partition = await bench.settle_first()
    await bench.stop()

    for _ in range(3):
        await bench.put(order_created("ann", 5))
    await bench.move(partition, 3)
    await bench.start()
    await bench.until_settled(4)
    await bench.until_committed(partition, 4)
    assert "the committed offset is past the watermark (watermark 1, committed 3)" in bench.log
    await bench.stop()


async def test_offset_moved_past_an_idle_partition_is_put_back(bench: Bench) -> None:
    partition = await bench.settle_first()
    await bench.stop()
    await bench.move(partition, 50)
    await bench.run()
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while await bench.committed(partition) != 1:
            await asyncio.sleep(0.1)
    await bench.put(order_created("ann", 5))
    await bench.until_settled(2)
    await bench.stop()


async def test_messages_passed_over_in_mid_run_are_read_again(bench: Bench) -> None:
    await bench.run()
    partition = await bench.put(order_created("ann", 5))
    await bench.until_settled(1)
    # As if offsets 1 to 3 had been acknowledged, but never handled.
    bench.sql("DELETE FROM payments; DELETE FROM inbox; UPDATE watermarks SET next_offset = 0")
    for _ in range(3):
        await bench.put(order_created("ann", 5))
    await bench.until_settled(4)
    await bench.until_committed(partition, 4)
    assert f"{partition.topic}/{partition.partition}: offsets 0 to 0 were passed over" in bench.log
    assert "seeks back" in bench.log
    await bench.stop()


async def test_seek_of_one_partition_loses_nothing_of_another(bench: Bench) -> None:
    partition = await bench.settle_first()
    other = next(u for u in (f"user-{n}" for n in range(100)) if bench.partition_of(u) != partition.partition)
    for count in range(1, 12, 2):
        # What was passed over is looked for, and finds nothing new: the inbox has it.
        bench.sql(f"UPDATE watermarks SET next_offset = 0 WHERE partition = {partition.partition}")
        await bench.put(order_created("ann", 5))
        await bench.until_logged("seeks back", times=1 + count // 2)
        await bench.put(order_created(other, 5))
        await bench.until_settled(count + 2, seconds_max=NEXT_FETCH_SECONDS)
    await bench.stop()


async def test_batch_that_an_exception_threw_away_is_read_again(bench: Bench) -> None:
    await bench.start(app="tests.integration.careless", CARELESS="exception")
    await bench.until_ready()
    partition = await bench.put(order_created("careless", 5))
    await bench.until_logged("Mistake")
    for _ in range(3):
        await bench.put(order_created("careless", 5))
    await bench.until_settled(4)
    await bench.until_committed(partition, 4)
    assert "seeks back" in bench.log
    await bench.stop()


async def test_message_acknowledged_but_not_handled_before_a_kill_is_read_again(bench: Bench) -> None:
    await bench.start(app="tests.integration.careless", CARELESS="ack")
    await bench.until_ready()
    partition = await bench.put(order_created("careless", 5))
    assert await bench.ends() == -signal.SIGKILL
    assert bench.sql("SELECT count(*) FROM payments") == [(0,)]
    assert await bench.committed(partition) == 1
    await bench.start()
    await bench.until_settled(1)
    assert "the committed offset is past the watermark (watermark 0, committed 1)" in bench.log
    await bench.stop()


async def test_seek_that_does_not_end_ends_the_worker_and_the_next_one_goes_on(bench: Bench) -> None:
    await bench.start(app="tests.integration.careless", CARELESS="seek")
    await bench.put(order_created("ann", 5))
    assert await bench.ends() > 0
    await bench.run()
    await bench.until_settled(1)
    await bench.stop()


async def test_log_whose_start_was_dropped_unread_is_gone_on_with_and_the_loss_is_told(bench: Bench) -> None:
    partition = await bench.settle_first()
    await bench.stop()
    for _ in range(3):
        await bench.put(order_created("ann", 5))
    await bench.drop_before(partition, 3)
    await bench.start()
    await bench.until_settled(2)
    assert "the log begins after the watermark (watermark 1, committed 1, 2 messages are lost)" in bench.log
    assert await bench.metric("eshop_messages_lost_total") == 2
    await bench.stop()


async def test_hole_in_the_log_itself_is_accepted_when_it_is_there_again(bench: Bench) -> None:
    await bench.run()
    producer = AIOKafkaProducer(bootstrap_servers=bench.cluster.kafka, transactional_id=bench.name)
    await producer.start()
    try:
        for _ in range(3):  # the mark of each transaction's end takes an offset and is no message
            async with producer.transaction():
                body = order_created("ann", 5)
                await producer.send_and_wait(bench.topic, encode(body), b"ann", headers=headers_of(body))
    finally:
        await producer.stop()
    await bench.until_settled(3)
    await bench.put(order_created("ann", 5))
    await bench.until_settled(4)
    assert "offsets 1 to 1 were passed over, where the log has no message: accepted" in bench.log
    assert "seeks back" not in bench.log
    await bench.stop()


async def test_topic_made_anew_while_nobody_reads_is_read_from_its_start(bench: Bench) -> None:
    await bench.run()
    for _ in range(3):
        await bench.put(order_created("ann", 5))
    await bench.until_settled(3)
    await bench.stop()
    await recreate_topic(bench.cluster.kafka, bench.name, ORDERS_EVENTS.name)
    partition = await bench.put(order_created("ann", 5))
    await bench.start()
    await bench.until_settled(4)
    assert "the log ends before the watermark" in bench.log
    for _ in range(4):
        await bench.put(order_created("ann", 5))
    await bench.until_settled(8)
    await bench.until_committed(partition, 5)
    await bench.stop()


async def test_worker_whose_topic_is_gone_ends_and_reads_the_new_one(bench: Bench) -> None:
    await bench.run()
    for _ in range(3):
        await bench.put(order_created("ann", 5))
    await bench.until_settled(3)
    await recreate_topic(bench.cluster.kafka, bench.name, ORDERS_EVENTS.name)
    assert await bench.ends() == EXIT_CODE
    assert "a topic is gone" in bench.log
    await bench.put(order_created("ann", 5))
    await bench.start()
    await bench.until_settled(4)
    await bench.stop()


BREAK_AND_MEND = {
    "revoked grant": ("REVOKE INSERT ON payments FROM {role}", "GRANT INSERT ON payments TO {role}"),
    "missing column": (
        "ALTER TABLE payments RENAME COLUMN reason TO gone",
        "ALTER TABLE payments RENAME COLUMN gone TO reason",
    ),
    "missing table": ("ALTER TABLE watermarks RENAME TO gone", "ALTER TABLE gone RENAME TO watermarks"),
}


@pytest.mark.parametrize(("spoil", "mend"), BREAK_AND_MEND.values(), ids=BREAK_AND_MEND.keys())
async def test_database_that_is_not_as_it_should_be_is_waited_for(
    bench: Bench, spoil: str, mend: str
) -> None:
    role = urlsplit(bench.database_url).username
    await bench.run()
    bench.sql(spoil.format(role=role))
    partition = await bench.put(order_created("ann", 5))
    await bench.until_logged("tries again in")
    assert await bench.metric("eshop_delivery_waiting") == 1
    await bench.put(order_created("ann", 5))
    bench.sql(mend.format(role=role))
    await bench.until_settled(2)
    assert await bench.metric("eshop_delivery_waiting") == 0
    await bench.until_committed(partition, 2)
    await bench.stop()


async def test_worker_that_waits_can_be_stopped_and_acknowledges_nothing(bench: Bench) -> None:
    await bench.run()
    bench.sql("ALTER TABLE payments RENAME COLUMN reason TO gone")
    partition = await bench.put(order_created("ann", 5))
    await bench.until_logged("tries again in")
    await bench.stop()
    assert await bench.committed(partition) == 0
    bench.sql("ALTER TABLE payments RENAME COLUMN gone TO reason")
    await bench.start()
    await bench.until_settled(1)


async def test_requests_that_wait_for_a_row_keep_no_order_waiting(bench: Bench) -> None:
    await bench.run()
    bench.sql("INSERT INTO wallets (user_id, currency) VALUES ('ann', 'USD')")
    holder = psycopg2.connect(
        urlsplit(bench.cluster.postgres_admin_url)._replace(path=urlsplit(bench.database_url).path).geturl()
    )
    channel: Any = open_channel(bench.grpc_address)
    try:
        with holder.cursor() as cursor:
            cursor.execute("SELECT * FROM wallets FOR UPDATE")
        asked = TopUpRequest(context=RequestContext(user_id="ann"), amount_minor=5)
        top_up = PaymentsStub(channel).TopUp
        metadata = credentials("development-service-token")
        requests = [asyncio.ensure_future(top_up(asked, metadata=metadata, timeout=20)) for _ in range(30)]
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            while bench.sql(waiting)[0][0] < 5:
                await asyncio.sleep(0.02)
        await bench.put(order_created("bob", 5))
        await bench.until_settled(1, seconds_max=2)
        holder.rollback()
        answers = await asyncio.gather(*requests, return_exceptions=True)
        assert all(not isinstance(a, BaseException) or isinstance(a, aio.AioRpcError) for a in answers)
    finally:
        holder.close()
        await channel.close()


async def test_broker_that_was_away_is_caught_up_with(bench: Bench) -> None:
    await bench.run()
    await bench.put(order_created("ann", 5))
    await bench.until_settled(1)
    channel: Any = open_channel(bench.grpc_address)
    asked = OpenAccountRequest(context=RequestContext(user_id="bob"), currency="USD")
    unsent = "SELECT count(*) FROM outbox WHERE sent_at IS NULL"
    try:
        await asyncio.to_thread(bench.cluster.kill_part, "kafka")
        try:
            metadata = credentials("development-service-token")
            answer = await PaymentsStub(channel).OpenAccount(asked, metadata=metadata, timeout=5)
            assert answer.account.user_id == "bob"
            await asyncio.sleep(AWAY_SECONDS)
            assert bench.sql(unsent)[0][0] == 1
        finally:
            await asyncio.to_thread(bench.cluster.start_part, "kafka")
        await bench.put(order_created("ann", 5))
        await bench.until_settled(2)
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            while bench.sql(unsent)[0][0]:
                await asyncio.sleep(0.05)
        await bench.stop()
    finally:
        await channel.close()


async def test_database_that_was_away_is_waited_for(bench: Bench) -> None:
    await bench.run()
    partition = await bench.put(order_created("ann", 5))
    await bench.until_settled(1)
    await asyncio.to_thread(bench.cluster.kill_part, "postgres")
    try:
        await bench.put(order_created("ann", 5))
        await bench.until_logged("tries again in")
        await asyncio.sleep(AWAY_SECONDS)
    finally:
        await asyncio.to_thread(bench.cluster.start_part, "postgres")
    await bench.until_settled(2)
    await bench.until_committed(partition, 2)
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while bench.sql("SELECT 1 FROM outbox WHERE sent_at IS NULL"):
            await asyncio.sleep(0.05)
    await bench.until_ready()
    await bench.stop()


@pytest.mark.parametrize("part", ["postgres", "kafka"])
async def test_worker_that_starts_before_what_it_needs_waits_for_it(
    bench: Bench, part: Literal["postgres", "kafka"]
) -> None:
    await asyncio.to_thread(bench.cluster.kill_part, part)
    try:
        await bench.start()
        await bench.until_logged("waits for what it needs")
    finally:
        await asyncio.to_thread(bench.cluster.start_part, part)
    await bench.until_ready()
    await bench.put(order_created("ann", 5))
    await bench.until_settled(1)
    await bench.stop()


async def test_batch_that_is_tried_again_does_not_keep_another_worker_from_joining(
    bench: Bench, tmp_path: Path
) -> None:
    await bench.run()
    bench.sql("ALTER TABLE payments RENAME COLUMN reason TO gone")
    users = [f"user-{number}" for number in range(40)]
    for user in users:
        await bench.put(order_created(user, 5))
    await bench.until_logged("tries again in")
    async with beside(bench, tmp_path) as second:
        await second.run()
        await bench.until_logged("gives up a batch")
        await second.until_logged("tries again in")
        bench.sql("ALTER TABLE payments RENAME COLUMN gone TO reason")
        await bench.until_settled(len(users))
        for user in users:
            await bench.put(order_created(user, 5))
        await bench.until_settled(2 * len(users))
        await second.stop()
        for user in users:
            await bench.put(order_created(user, 5))
        await bench.until_settled(3 * len(users))
        await bench.stop()


async def test_worker_that_starts_again_under_its_name_has_its_partitions_at_once_and_moves_no_others(
    bench: Bench, tmp_path: Path
) -> None:
    # Longer than this test waits for anything: nothing it sees comes of a session's end.
    patient = {"BROKER_SESSION_TIMEOUT": "120", "BROKER_REQUEST_TIMEOUT": "150"}
    await bench.run(ESHOP_INSTANCE="first", **patient)
    async with beside(bench, tmp_path) as second:
        await second.run(ESHOP_INSTANCE="second", **patient)
        users = [f"user-{number}" for number in range(40)]
        for user in users:
            await bench.put(order_created(user, 5))
        await bench.until_settled(len(users))
        assigned = bench.log.count(ASSIGNED)
        await second.kill()
        assert await second.ends() == -signal.SIGKILL
        for user in users:
            await bench.put(order_created(user, 5))
        await second.run(ESHOP_INSTANCE="second", **patient)
        await bench.until_settled(2 * len(users))
        assert bench.log.count(ASSIGNED) == assigned
        await second.stop()
        await bench.stop()
