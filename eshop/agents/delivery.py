"""The delivery policy, written once: what happens between reading a batch and acknowledging it."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, NoReturn, TypeVar

import faust
from faust.types import EventT
from prometheus_client import Counter, Gauge, Histogram

from eshop.agents.batches import is_current, message_of
from eshop.contracts.envelope import UndecodableMessage
from eshop.contracts.messages import Message
from eshop.exit import end_process
from eshop.store.faults import WatermarkGap, is_poison
from eshop.store.units import Store

logger = logging.getLogger(__name__)

BACKOFF_SECONDS = 0.1
BACKOFF_SECONDS_MAX = 5.0

_handled = Counter("eshop_messages_handled_total", "Messages whose effect is stored", ["agent"])
_retries = Counter("eshop_delivery_retries_total", "Batches that were tried again", ["agent"])
_waiting = Gauge("eshop_delivery_waiting", "1 while a batch is being retried: the alarm to watch", ["agent"])
_batch_size = Histogram(
    "eshop_batch_messages", "Messages in a transaction", ["agent"], buckets=(1, 2, 5, 10, 50, 100, 250, 500)
)

U = TypeVar("U")
Handler = Callable[[U, Sequence[Message]], Awaitable[None]]


class Delivery(Generic[U]):
    """Delivers batches to one handler.

    A transient fault is retried whole, in place, with backoff, for ever. A message that can't be decoded or
    stored, and a gap before a batch, end the process: parking and seeking back are not there yet.
    """

    def __init__(
        self,
        app: faust.App,
        store: Store[U],
        handler: Handler[U],
        name: str,
        end: Callable[[str], NoReturn] = end_process,
    ) -> None:
        self._app = app
        self._store = store
        self._handler = handler
        self._name = name
        self._end = end

    async def deliver(self, events: Sequence[EventT[Any]]) -> bool:
        """Return True after COMMIT, or False where the partitions have moved: then nobody acknowledges."""
        messages = self._decoded(events)
        delay = BACKOFF_SECONDS
        _batch_size.labels(self._name).observe(len(messages))
        while True:
            try:
                await self._store.transact(lambda uow: self._handler(uow, messages))
            except WatermarkGap as gap:
                self._end(f"{self._name}: {gap}")
            except Exception as error:  # noqa: BLE001  whatever is not poison is transient
                if is_poison(error):
                    self._end(f"{self._name}: a message of {_places(messages)} can't be stored: {error}")
                if not self._may_retry(events):
                    logger.warning("%s gives up a batch: its partitions have moved", self._name)
                    _waiting.labels(self._name).set(0)
                    return False
                logger.warning("%s tries again in %.1f s after: %r", self._name, delay, error)
                await self._wait(delay)
                delay = min(delay * 2, BACKOFF_SECONDS_MAX)
            else:
                _waiting.labels(self._name).set(0)
                _handled.labels(self._name).inc(len(messages))
                return True

    def _decoded(self, events: Sequence[EventT[Any]]) -> list[Message]:
        messages = []
        for event in events:
            try:
                messages.append(message_of(event))
            except UndecodableMessage as error:
                read = event.message
                self._end(
                    f"{self._name}: {read.topic}/{read.partition}@{read.offset} can't be decoded: {error}"
                )
        return messages

    def _may_retry(self, events: Sequence[EventT[Any]]) -> bool:
        return not self._app.should_stop and all(is_current(self._app, event) for event in events)

    async def _wait(self, seconds: float) -> None:
        _retries.labels(self._name).inc()
        _waiting.labels(self._name).set(1)
        await asyncio.sleep(seconds * random.uniform(0.5, 1.0))  # noqa: S311  jitter, no secret


def _places(messages: Sequence[Message]) -> str:
    first, last = messages[0].origin, messages[-1].origin
    return f"{first.topic}/{first.partition}@{first.offset} to {last.topic}/{last.partition}@{last.offset}"
