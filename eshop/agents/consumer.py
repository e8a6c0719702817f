"""The one agent a service has per topic it reads: stream, deliver, acknowledge."""

import logging
from typing import Any, TypeVar, cast

from faust.types import StreamT

from eshop.agents.batches import batches
from eshop.agents.delivery import Delivery, Handler, Park
from eshop.agents.periodic import register_periodic
from eshop.agents.positions import Positions
from eshop.agents.watchdog import Watchdog
from eshop.exit import end_process
from eshop.store.units import AnyUnitOfWork, Store
from eshop.web.app import ServiceApp
from eshop.web.consumer import SeekingConsumer

logger = logging.getLogger(__name__)

#: How often the log's bounds are compared with the watermarks.
LOOK_SECONDS = 5.0

U = TypeVar("U", bound=AnyUnitOfWork)


def register(
    app: ServiceApp, store: Store[U], topic_name: str, handler: Handler[U], park: Park[U], name: str
) -> None:
    """Have the handler get every message of the topic, in batches, exactly once in effect.

    One agent per topic with concurrency 1, because acknowledgements must be in order.
    """
    positions = Positions(app, store, topic_name, name)
    delivery = Delivery(app, store, handler, park, positions, name)
    topic = app.topic(
        topic_name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"
    )

    async def consume(stream: StreamT[Any]) -> None:
        try:
            async for events in batches(app, stream):
                await delivery.deliver(events)
        except Exception as error:  # noqa: BLE001  whatever it is
            # Out of the loop, Faust would acknowledge what was not handled.
            end_process(f"{name} failed: {error!r}")

    app.agent(topic, name=name, concurrency=1)(consume)
    app.after_seek(positions.align)
    app.at_end(delivery.stop)
    _watch(app, positions, delivery, name)


def _watch(app: ServiceApp, positions: Positions[U], delivery: Delivery[U], name: str) -> None:
    watchdog = Watchdog(name)

    async def look() -> None:
        epoch = positions.epoch
        consumer = cast("SeekingConsumer", app.consumer)
        partitions = positions.assigned(consumer)
        if positions.is_topic_gone():
            end_process(f"{name}: the topic is gone; it is made anew at the next start")
        try:
            marks, starts, ends = await positions.bounds(consumer, partitions)
        except Exception as error:  # noqa: BLE001  of the database or the broker: both come back
            logger.info("%s can't compare the log with the watermarks now: %r", name, error)
            watchdog.forget()
            return
        if app.rebalancing:
            watchdog.forget()
            return
        done = {tp: marks.get(tp.partition, 0) for tp in partitions}
        if any(not starts[tp] <= done[tp] <= ends[tp] for tp in partitions):
            await positions.seek_back(epoch)
        for tp in partitions:
            watchdog.look(tp.partition, done[tp], ends[tp], delivery.tried_at(tp.partition))

    register_periodic(app, LOOK_SECONDS, look, f"the watch on {name}")
