"""The gateway on a real broker: from topic to socket, past what can't be read, and after an absence."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
import uuid_utils
from aiohttp import ClientWebSocketResponse, web
from aiohttp.test_utils import TestClient
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from eshop.cluster.embedded import EmbeddedCluster
from eshop.contracts import orders_v1
from eshop.contracts.envelope import Envelope
from eshop.contracts.messages import encode, schema_of
from eshop.contracts.topics import ORDERS_EVENTS, PAYMENTS_EVENTS
from eshop.settings import Settings
from tests.support import record_batches as raw_batches
from tests.support.fake_services import FakeServices

pytest_plugins = ["tests.support.gateway"]

Client = TestClient[web.Request, web.Application]
PREFIX = "gateway-events."


@pytest.fixture
def settings(settings: Settings, cluster: EmbeddedCluster) -> Settings:
    """The same on a real broker, where the topics are not there yet."""
    prefix = f"{PREFIX}{uuid_utils.uuid7()}."
    return settings.model_copy(update={"kafka": cluster.kafka, "topic_prefix": prefix})


class Broker:
    """Makes the topics, and sends what services would."""

    def __init__(self, settings: Settings, producer: AIOKafkaProducer) -> None:
        self._settings = settings
        self._producer = producer

    async def make_topics(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._settings.kafka)
        await admin.start()
        names = [self._settings.topic(topic.name) for topic in (ORDERS_EVENTS, PAYMENTS_EVENTS)]
        await admin.create_topics([NewTopic(name, 3, 1) for name in names])
        await admin.close()

    async def send_garbage(self, user_id: str) -> None:
        topic = self._settings.topic(ORDERS_EVENTS.name)
        await self._producer.send_and_wait(topic, value=b"garbage", key=user_id.encode())
        await self._producer.send_and_wait(topic, value=None, key=user_id.encode())

    async def send_unreadable(self) -> None:
        """Send what the client library can't parse, to every partition."""
        topic = self._settings.topic(ORDERS_EVENTS.name)
        records: list[raw_batches.Record] = [(b"ann", b"value", [])] * 3
        for partition in range(3):
            for bad in (raw_batches.with_bad_header_name(records, 1), raw_batches.with_bad_lz4(records)):
                await raw_batches.send(self._producer, topic, partition, bad)

    async def send_created(self, user_id: str, order_id: str, feed_number: int) -> str:
        body = orders_v1.OrderCreated(
            user_id=user_id,
            order_id=order_id,
            amount_minor=5,
            currency="USD",
            version=1,
            feed_number=feed_number,
            pay_before=datetime.now(UTC),
        )
        schema = schema_of(body)
        at = datetime(2026, 11, 22, 10, 0, 0, 5, UTC)
        envelope = Envelope(
            str(uuid_utils.uuid7()), schema.type, "orders", schema.dataschema, at, "correlation", "causation"
        )
        await self._producer.send_and_wait(
            self._settings.topic(ORDERS_EVENTS.name),
            value=encode(body),
            key=user_id.encode(),
            headers=envelope.to_headers(),
        )
        return "2026-11-22T10:00:00.000005Z"


@pytest.fixture
async def broker(settings: Settings) -> AsyncIterator[Broker]:
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka)
    await producer.start()
    yield Broker(settings, producer)
    await producer.stop()


async def attached(client: Client) -> None:
    async with asyncio.timeout(30):
        while (await client.get("/health/started")).status != 200:
            await asyncio.sleep(0.1)


async def hello(client: Client) -> ClientWebSocketResponse:
    socket = await client.ws_connect("/api/v1/ws")
    assert (await socket.receive_json())["type"] == "hello"
    return socket


async def test_an_event_on_the_topic_is_pushed_and_garbage_is_passed_over(
    client: Client, broker: Broker, services: FakeServices
) -> None:
    await broker.make_topics()
    await attached(client)
    socket = await hello(client)
    await broker.send_garbage("ann")
    order = services.orders.place("ann", 5)
    at = await broker.send_created("ann", order.order_id, 1)
    frame = await socket.receive_json(timeout=10)
    assert (frame["id"], frame["order_id"], frame["status"], frame["at"]) == (
        "1.0",
        order.order_id,
        "NEW",
        at,
    )
    metrics = await (await client.get("/metrics")).text()
    assert "gateway_events_undecodable_total 2.0" in metrics
    assert "gateway_events_attached 1.0" in metrics
    await socket.close()


async def test_what_can_not_be_parsed_is_counted_and_passed_over(
    client: Client, broker: Broker, services: FakeServices
) -> None:
    await broker.make_topics()
    await attached(client)
    socket = await hello(client)
    await broker.send_unreadable()
    order = services.orders.place("ann", 5)
    await broker.send_created("ann", order.order_id, 1)
    frame = await socket.receive_json(timeout=10)
    assert (frame["order_id"], frame["status"]) == (order.order_id, "NEW")
    async with asyncio.timeout(30):
        # Of each partition: two good records with nothing in them, a bad one, and a batch that comes as one.
        while "gateway_events_undecodable_total 12.0" not in await (await client.get("/metrics")).text():
            await asyncio.sleep(0.1)
    assert (await client.get("/health/ready")).status == 200
    await socket.close()


async def test_what_happened_while_the_topics_were_away_comes_when_they_are_back(
    client: Client, broker: Broker, services: FakeServices
) -> None:
    assert (await client.get("/health/started")).status == 503
    socket = await hello(client)
    missed = services.orders.place("ann", 5)
    assert (await client.post("/api/v1/orders", json={"amount_minor": 7})).status == 201
    await broker.make_topics()
    frames = [await socket.receive_json(timeout=30) for _ in range(2)]
    assert [frame["id"] for frame in frames] == ["1.0", "2.0"]
    assert frames[0]["order_id"] == missed.order_id
    await socket.close()
