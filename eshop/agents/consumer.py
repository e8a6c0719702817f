"""The agent of a service for a topic: stream, deliver, acknowledge."""

from typing import Any, TypeVar

from faust.types import StreamT

from eshop.agents.batches import batches
from eshop.agents.delivery import Delivery, Park
from eshop.agents.positions import NextOffset, Positions
from eshop.agents.watchdog import LOOK_SECONDS, PartitionProgress, Watch
from eshop.handlers.replay import Handler
from eshop.process.app import ServiceApp
from eshop.process.consumer import SeekingConsumer
from eshop.process.exit import end_process
from eshop.process.periodic import register_periodic
from eshop.store.unit_of_work import Store, UnitOfWork

U = TypeVar("U", bound=UnitOfWork)


def register(
    app: ServiceApp,
    store: Store[U],
    topic_name: str,
    handler: Handler[U],
    park: Park[U],
    next_offset: NextOffset,
    name: str,
) -> None:
    """Have the handler get every message of the topic, in batches, exactly once in effect.

    A topic has one agent with concurrency 1, because acknowledgements must be in order.
    """
    positions = Positions(app, store, topic_name, next_offset, name)
    delivery = Delivery(app, store, handler, park, positions, name)
    topic = app.topic(
        topic_name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"
    )

    async def consume(stream: StreamT[Any]) -> None:
        try:
            async for events in batches(app, stream):
                await delivery.deliver(events)
        except Exception as error:  # noqa: BLE001  whatever it is
            # If the exception left the loop, Faust would acknowledge the message that was not handled.
            end_process(f"{name} failed: {error!r}")

    app.agent(topic, name=name, concurrency=1)(consume)
    app.after_seek(positions.align)
    app.at_end(delivery.stop)

    async def progress(consumer: SeekingConsumer) -> list[PartitionProgress]:
        epoch, partitions = positions.epoch, positions.assigned(consumer)
        marks, starts, ends = await positions.bounds(consumer, partitions)
        done = {tp: marks.get(tp.partition, 0) for tp in partitions}
        if any(not starts[tp] <= done[tp] <= ends[tp] for tp in partitions):
            await positions.seek_back(epoch)
        return [
            PartitionProgress(tp, done[tp], ends[tp], delivery.tried_at(tp.partition)) for tp in partitions
        ]

    watch = Watch(app, [topic_name], progress, next_offset, name)
    register_periodic(app, LOOK_SECONDS, watch.look, f"the watch on {name}")
