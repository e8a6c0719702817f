"""A look into a topic's log, beside any consumer group."""

import asyncio
from collections.abc import AsyncGenerator, Mapping

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

LOOK_SECONDS_MAX = 10.0
READ_MS = 500


async def next_offset(kafka: str, topic: str, partition: int, offset: int) -> int | None:
    """Return the offset of the first message at ``offset`` or behind it; None where the log starts behind it.

    A transaction's end mark takes an offset and is no message. Raises TimeoutError where there is none yet,
    and aiokafka's KafkaError while the broker is away.
    """
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, auto_offset_reset="none")
    try:
        async with asyncio.timeout(LOOK_SECONDS_MAX):
            await consumer.start()
            at = TopicPartition(topic, partition)
            consumer.assign([at])
            consumer.seek(at, offset)
            return int((await consumer.getone(at)).offset)
    except OffsetOutOfRangeError:
        return None
    finally:
        await consumer.stop()


async def read_from(
    kafka: str, offsets: Mapping[tuple[str, int], int]
) -> AsyncGenerator[list[ConsumerRecord], None]:
    """Yield what each (topic, partition) has from its offset on, without an end; nothing now and then.

    Raises aiokafka's KafkaError while the broker is away.
    """
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False)
    try:
        await consumer.start()
        consumer.assign([TopicPartition(*at) for at in offsets])
        for at, offset in offsets.items():
            consumer.seek(TopicPartition(*at), offset)
        while True:
            read = await consumer.getmany(timeout_ms=READ_MS)
            yield [record for records in read.values() for record in records]
    finally:
        await consumer.stop()
