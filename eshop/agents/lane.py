"""One partition's messages after a fault: handled by themselves, in order, until none is left."""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import faust
from faust.types import EventT
from prometheus_client import Counter, Gauge

from eshop.agents.batches import BATCH_MAX, is_current
from eshop.contracts.envelope import UndecodableMessage
from eshop.store.faults import WatermarkGap, is_poison

logger = logging.getLogger(__name__)

BACKOFF_SECONDS = 0.1
BACKOFF_SECONDS_MAX = 5.0

_retries = Counter("eshop_delivery_retries_total", "Batches that were tried again", ["agent"])
_waiting = Gauge("eshop_delivery_waiting", "Partitions whose batch is retried: the alarm to watch", ["agent"])

Event = EventT[Any]


class Attempts(Protocol):
    """What a lane tries. Each raises what goes wrong, and has changed and acknowledged nothing then."""

    async def handle(self, events: Sequence[Event]) -> None:
        """Handle the events in one transaction."""

    async def park(self, event: Event, error: Exception) -> None:
        """Set one message aside."""

    async def seek_back(self, epoch: int, gap: WatermarkGap) -> None:
        """Have all that was read be read again, from before the gap."""

    @property
    def epoch(self) -> int:
        """Grows with every seek."""


class Lane:
    """Works off one partition.

    A transient fault is retried in place, with backoff, for ever, or until the partition is another
    worker's. Poison is found by halving the batch; alone, it is parked.
    """

    def __init__(self, app: faust.App, attempts: Attempts, name: str, events: Iterable[Event]) -> None:
        self._app = app
        self._attempts = attempts
        self._name = name
        self._events = deque(events)
        self._epoch = attempts.epoch
        self._at_most = BATCH_MAX
        self._delay = BACKOFF_SECONDS
        self._is_waiting = False
        self.task = asyncio.create_task(self._run())
        self.task.add_done_callback(lambda _task: self._show_waiting(False))

    def __len__(self) -> int:
        return len(self._events)

    def add(self, event: Event) -> None:
        """Have this one handled after all that are there."""
        self._drop_reread()
        self._events.append(event)

    def take_all(self) -> list[Event]:
        """Return what is left, and leave nothing."""
        left = list(self._events)
        self._events.clear()
        return left

    async def _run(self) -> None:
        while batch := self._head():
            try:
                await self._attempt(batch)
            except WatermarkGap as gap:
                await self._attempts.seek_back(self._epoch, gap)
                self._drop(batch)
            except Exception as error:  # noqa: BLE001  whatever is not poison is transient
                if len(batch) > 1 and _is_poison(error):
                    self._at_most = len(batch) // 2
                else:
                    await self._pause(error)
            else:
                self._succeeded(batch)

    def _head(self) -> list[Event]:
        """Return the next batch: of messages whose partition is still assigned as it was."""
        if self._app.should_stop:
            return []
        self._drop_reread()
        current = [event for event in self._events if is_current(self._app, event)]
        if len(current) < len(self._events):
            logger.warning("%s gives up a batch: its partitions have moved", self._name)
            self._events = deque(current)
        return current[: self._at_most]

    def _drop_reread(self) -> None:
        """Drop what was read before the last seek: it comes again."""
        if self._epoch != self._attempts.epoch:
            self._events.clear()
            self._epoch = self._attempts.epoch

    async def _attempt(self, batch: list[Event]) -> None:
        try:
            await self._attempts.handle(batch)
        except Exception as error:
            if len(batch) > 1 or not _is_poison(error):
                raise
            await self._attempts.park(batch[0], error)

    def _succeeded(self, batch: list[Event]) -> None:
        self._drop(batch)
        self._at_most = min(self._at_most * 2, BATCH_MAX)
        self._delay = BACKOFF_SECONDS
        self._show_waiting(False)

    def _drop(self, batch: list[Event]) -> None:
        for event in batch:
            if self._events and self._events[0] is event:
                self._events.popleft()

    async def _pause(self, error: Exception) -> None:
        logger.warning("%s tries again in %.1f s after: %r", self._name, self._delay, error)
        _retries.labels(self._name).inc()
        self._show_waiting(True)
        await asyncio.sleep(self._delay * random.uniform(0.5, 1.0))  # noqa: S311  jitter, no secret
        self._delay = min(self._delay * 2, BACKOFF_SECONDS_MAX)

    def _show_waiting(self, is_waiting: bool) -> None:
        if is_waiting != self._is_waiting:
            _waiting.labels(self._name).inc(1 if is_waiting else -1)
            self._is_waiting = is_waiting


def _is_poison(error: Exception) -> bool:
    return isinstance(error, UndecodableMessage) or is_poison(error)
