"""The one agent a service has per topic it reads: stream, deliver, acknowledge."""

from typing import Any, TypeVar

import faust
from faust.types import StreamT

from eshop.agents.batches import ack_in_order, batches
from eshop.agents.delivery import Delivery, Handler
from eshop.exit import end_process
from eshop.store.units import Store

U = TypeVar("U")


def register(app: faust.App, store: Store[U], topic_name: str, handler: Handler[U], name: str) -> None:
    """Have the handler get every message of the topic, in batches, exactly once in effect.

    One agent per topic with concurrency 1, because acknowledgements must be in order.
    """
    delivery = Delivery(app, store, handler, name)
    topic = app.topic(
        topic_name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"
    )

    async def consume(stream: StreamT[Any]) -> None:
        try:
            async for events in batches(app, stream):
                if await delivery.deliver(events):
                    ack_in_order(app, events)  # last: a crash before it means redelivery
        except Exception as error:  # noqa: BLE001  whatever it is
            # Out of the loop, Faust would acknowledge what was not handled.
            end_process(f"{name} failed: {error!r}")

    app.agent(topic, name=name, concurrency=1)(consume)
