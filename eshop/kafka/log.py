"""A look into a topic's log, beside any consumer group."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from eshop.kafka.record_batches import tolerate_unreadable

LOOK_SECONDS_MAX = 10.0
READ_MS = 500


async def next_offset(kafka: str, topic: str, partition: int, offset: int) -> int | None:
    """Return the offset of the first message at or after ``offset``; None if the log starts after it.

    The end mark of a transaction takes an offset and is no message. Raises TimeoutError if there is no
    message yet, and aiokafka's KafkaError while the broker is away.
    """
    try:
        async with asyncio.timeout(LOOK_SECONDS_MAX):
            async with _reader(kafka, {(topic, partition): offset}, reset="none") as consumer:
                return int((await consumer.getone()).offset)
    except OffsetOutOfRangeError:
        return None


async def read_from(
    kafka: str, offsets: Mapping[tuple[str, int], int]
) -> AsyncGenerator[list[ConsumerRecord], None]:
    """Yield the records of each (topic, partition) from its offset on, without an end; at times none.

    Raises aiokafka's KafkaError while the broker is away.
    """
    async with _reader(kafka, offsets, reset="latest") as consumer:
        while True:
            read = await consumer.getmany(timeout_ms=READ_MS)
            yield [record for records in read.values() for record in records]


@asynccontextmanager
async def _reader(
    kafka: str, offsets: Mapping[tuple[str, int], int], reset: str
) -> AsyncIterator[AIOKafkaConsumer]:
    tolerate_unreadable()
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, auto_offset_reset=reset)
    try:
        await consumer.start()
        consumer.assign([TopicPartition(*at) for at in offsets])
        for at, offset in offsets.items():
            consumer.seek(TopicPartition(*at), offset)
        yield consumer
    finally:
        await consumer.stop()
