"""A look into a topic's log, beside any consumer group."""

import asyncio

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

LOOK_SECONDS_MAX = 10.0


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
