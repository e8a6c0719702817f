"""The messages of one partition after a fault: handled by themselves, in order, until none is left.

It bounds head-of-line blocking to the partition. See docs/adr/0013-a-fault-blocks-its-own-partition.md.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import faust
from faust.types import EventT
from prometheus_client import Counter, Gauge

from eshop.agents.batches import BATCH_MAX, is_current
from eshop.agents.positions import Positions
from eshop.backoff import Backoff
from eshop.contracts.envelope import UndecodableMessage
from eshop.store.faults import WatermarkGap, is_poison

logger = logging.getLogger(__name__)

BACKOFF_SECONDS = 0.1
BACKOFF_SECONDS_MAX = 5.0
#: The largest number of messages that a retry queues. Later ones are dropped; when the queue is empty, the
#: consumer seeks back to them.
WAITING_MAX = 1_000

_retries = Counter("eshop_delivery_retries_total", "Batches that were tried again", ["agent"])
_waiting = Gauge("eshop_delivery_waiting", "Partitions whose batch is retried: the alarm to watch", ["agent"])

Event = EventT[Any]


class Attempts(Protocol):
    """The operations that a retry attempts. If one raises, nothing was written and nothing acknowledged."""

    async def handle(self, events: Sequence[Event]) -> None:
        """Handle the events in one transaction."""

    async def park(self, event: Event, error: Exception) -> None:
        """Park one message."""

    @property
    def turn(self) -> AbstractAsyncContextManager[object]:
        """Held during an attempt: bounds the number of retries that try at the same time."""


class PartitionRetry:
    """Works through the messages of one partition.

    A transient fault is retried with backoff, without an end, until the partition is assigned to another
    worker. A poison message is found by halving the batch, and is parked when it is alone.
    """

    def __init__(
        self,
        app: faust.App,
        attempts: Attempts,
        positions: Positions[Any],
        name: str,
        events: Iterable[Event],
    ) -> None:
        self._app = app
        self._attempts = attempts
        self._positions = positions
        self._name = name
        self._events = deque(events)
        self._epoch = positions.epoch
        self._at_most = BATCH_MAX
        self._backoff = Backoff(BACKOFF_SECONDS, BACKOFF_SECONDS_MAX)
        self._is_waiting = False
        self._is_overfull = False
        self.task = asyncio.create_task(self._run())
        self.task.add_done_callback(lambda _task: self._show_waiting(False))

    def __len__(self) -> int:
        return len(self._events)

    def add(self, event: Event) -> None:
        """Append the event. If the queue is full, drop the event, which is read again later."""
        self._drop_reread()
        self._is_overfull = self._is_overfull or len(self._events) >= WAITING_MAX
        if not self._is_overfull:
            self._events.append(event)

    def take_all(self) -> list[Event]:
        """Return the queued messages and empty the queue."""
        left = list(self._events)
        self._events.clear()
        return left

    async def _run(self) -> None:
        while True:
            while batch := self._head():
                try:
                    await self._try(batch)
                except Exception as error:  # noqa: BLE001  whatever is not poison is transient
                    await self._pause(error)
            if not self._is_overfull or self._app.should_stop:
                return
            if not await self._positions.seek_back(self._epoch):
                await asyncio.sleep(BACKOFF_SECONDS)
            self._drop_reread()

    async def _try(self, batch: list[Event]) -> None:
        try:
            async with self._attempts.turn:
                await self._attempt(batch)
        except WatermarkGap as gap:
            if not await self._positions.is_hole(gap) and not await self._positions.seek_back(self._epoch):
                raise
        except Exception as error:
            if len(batch) == 1 or not _is_poison(error):
                raise
            self._at_most = len(batch) // 2
        else:
            self._succeeded(batch)

    def _head(self) -> list[Event]:
        """Return the next batch of messages whose partition is still assigned as when they were read."""
        if self._app.should_stop:
            return []
        self._drop_reread()
        current = [event for event in self._events if is_current(self._app, event)]
        if len(current) < len(self._events):
            logger.warning("%s gives up a batch: its partitions have moved", self._name)
            self._events = deque(current)
        return current[: self._at_most]

    def _drop_reread(self) -> None:
        """Drop messages that were read before the last seek: they are read again."""
        if self._epoch != self._positions.epoch:
            self._events.clear()
            self._epoch = self._positions.epoch
            self._is_overfull = False

    async def _attempt(self, batch: list[Event]) -> None:
        try:
            await self._attempts.handle(batch)
        except Exception as error:
            if len(batch) > 1 or not _is_poison(error):
                raise
            await self._attempts.park(batch[0], error)

    def _succeeded(self, batch: list[Event]) -> None:
        for event in batch:
            if self._events and self._events[0] is event:
                self._events.popleft()
        self._at_most = min(self._at_most * 2, BATCH_MAX)
        self._backoff.succeeded()
        self._show_waiting(False)

    async def _pause(self, error: Exception) -> None:
        pause = self._backoff.failed()
        logger.warning("%s tries again in %.1f s after: %r", self._name, pause, error)
        _retries.labels(self._name).inc()
        self._show_waiting(True)
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  jitter, no secret

    def _show_waiting(self, is_waiting: bool) -> None:
        if is_waiting != self._is_waiting:
            _waiting.labels(self._name).inc(1 if is_waiting else -1)
            self._is_waiting = is_waiting


def _is_poison(error: Exception) -> bool:
    return isinstance(error, UndecodableMessage) or is_poison(error)
