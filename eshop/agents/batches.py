"""Turns a stream into batches: all events that are there, up to a bound, without waiting for more.

See docs/adr/0003-every-handler-takes-a-batch.md.
"""

from asyncio import QueueEmpty
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, cast

import faust
from faust.types import EventT, StreamT

from eshop.contracts.messages import Message, Origin, decode
from eshop.process.consumer import SeekingConsumer

#: The largest number of messages in one transaction.
BATCH_MAX = 500


async def batches(
    app: faust.App, stream: StreamT[Any], at_most: int = BATCH_MAX
) -> AsyncIterator[list[EventT[Any]]]:
    """Yield events as they arrive: the first with all events that wait behind it. Nothing is acknowledged.

    `Stream.take` would wait for its whole window even if messages are there, and acknowledges a batch that
    raised.
    """
    unacknowledged = cast("faust.Stream[Any]", stream).noack()
    queue = cast("faust.Channel[Any]", stream.channel).queue
    async for first in unacknowledged.events():
        events = [first]
        while len(events) < at_most:
            try:
                waiting = queue.get_nowait()
            except QueueEmpty:
                break
            events.append(waiting)
        current = [event for event in events if is_current(app, event)]
        if current:
            yield current


def is_current(app: faust.App, event: EventT[Any]) -> bool:
    """Tell whether the event's partition is still assigned as when the event was read."""
    return bool(event.message.generation_id == app.consumer_generation_id)


def origin_of(event: EventT[Any]) -> Origin:
    """Return the topic, partition and offset of the event."""
    return Origin(event.message.topic, event.message.partition, event.message.offset)


def headers_of(event: EventT[Any]) -> list[tuple[str, bytes]]:
    """Return the event's headers as Kafka has them; a null value is an empty value."""
    headers = event.message.headers
    pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
    return [(name, value or b"") for name, value in pairs]


def message_of(event: EventT[Any]) -> Message:
    """Decode an event; raise UndecodableMessage if that can never succeed."""
    return decode(origin_of(event), event.message.key, event.message.value, headers_of(event))


def ack_in_order(app: faust.App, events: Sequence[EventT[Any]]) -> None:
    """Acknowledge the events of partitions that are still assigned; the new owner gets the others again."""
    current = [event.message for event in events if is_current(app, event)]
    cast("SeekingConsumer", app.consumer).acknowledge(current)
