"""Ends a worker that has work and makes no progress; the supervisor starts a new one.

See docs/adr/0023-a-watchdog-ends-workers-without-progress.md.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import cast

from faust.types import TP

from eshop.agents.positions import NextOffset
from eshop.process.app import ServiceApp
from eshop.process.consumer import SeekingConsumer
from eshop.process.exit import end_process
from eshop.web.health import NotReady

logger = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
#: Far longer than any attempt may take: statements and locks are bounded to seconds.
STALLED_SECONDS = 30.0
#: A partition may have to wait for others with a backlog, but not without an end.
STARVED_SECONDS = 300.0
#: The recovery of a large table is included.
UNSETTLED_SECONDS = 180.0
#: More than the sum of all bounds of a relay's round. An outage uses up one or two of them.
SILENT_SECONDS = 45.0
#: After this time the worker is not ready.
QUIET_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class PartitionProgress:
    """A partition's progress, the end of its log, and the time of its last attempt (monotonic clock)."""

    partition: TP
    done: int
    end: int
    tried_at: float = 0.0


class Watchdog:
    """Detects partitions that make no progress. A failed attempt counts as progress."""

    def __init__(self) -> None:
        self._seen: dict[TP, tuple[int, float]] = {}
        self._looked_at = 0.0
        self._alive_at = 0.0

    def forget(self) -> None:
        """Start again: for a while nothing could be observed."""
        self._seen.clear()

    def look(self, progress: Sequence[PartitionProgress]) -> list[PartitionProgress]:
        """Return the partitions in which offsets wait and nothing was handled or tried for too long."""
        now = time.monotonic()
        if now - self._looked_at > 2 * LOOK_SECONDS:  # what was asked hung, with the broker or the database
            self.forget()
        self._looked_at = now
        idle = [(at, self._idle_since(at, now)) for at in progress]
        self._seen = {at.partition: self._seen[at.partition] for at in progress}
        limit = STARVED_SECONDS if now - self._alive_at <= STALLED_SECONDS else STALLED_SECONDS
        return [at for at, since in idle if now - since > limit]

    def _idle_since(self, at: PartitionProgress, now: float) -> float:
        """Return the time of the partition's last progress: now, if it has nothing to do."""
        done, since = self._seen.get(at.partition, (-1, now))
        self._alive_at = max(self._alive_at, at.tried_at if at.done == done else now)
        if at.done != done or at.done >= at.end:
            since = now
        self._seen[at.partition] = (at.done, since)
        return max(since, at.tried_at)


class Watch:
    """Ends the worker if its agent makes no progress, never gets its partitions, or has lost its topic."""

    def __init__(
        self,
        app: ServiceApp,
        topics: Collection[str],
        progress: Callable[[SeekingConsumer], Awaitable[Sequence[PartitionProgress]]],
        next_offset: NextOffset,
        name: str,
    ) -> None:
        self._app = app
        self._topics = topics
        self._progress = progress
        self._next_offset = next_offset
        self._name = name
        self._watchdog = Watchdog()
        self._unsettled_at = 0.0
        self._looks_without_topic = 0

    async def look(self) -> None:
        """Look once."""
        consumer = cast("SeekingConsumer", self._app.consumer)
        self._check_topics(consumer)
        if self._is_unsettled():
            self._watchdog.forget()
            return
        try:
            for at in self._watchdog.look(await self._progress(consumer)):
                if await self._next_offset(at.partition.topic, at.partition.partition, at.done) is not None:
                    end_process(f"{self._name} makes no progress at {at}")
        except Exception as error:  # noqa: BLE001  of the database or the broker: both come back
            logger.info("%s can't see how far it is: %r", self._name, error)
            self._watchdog.forget()

    def _check_topics(self, consumer: SeekingConsumer) -> None:
        """End the process if a topic is gone: Faust would ignore the topic, even after its return."""
        is_gone = any(consumer.topic_partitions(topic) == 0 for topic in self._topics)  # None: not known yet
        self._looks_without_topic = self._looks_without_topic + 1 if is_gone else 0
        if self._looks_without_topic > 1:
            end_process(f"{self._name}: a topic is gone; the next start creates it")

    def _is_unsettled(self) -> bool:
        """Tell whether a rebalance is under way; end the process if the rebalance does not end."""
        now = time.monotonic()
        if not self._app.rebalancing:
            self._unsettled_at = 0.0
            return False
        self._unsettled_at = self._unsettled_at or now
        if now - self._unsettled_at > UNSETTLED_SECONDS:
            end_process(f"{self._name} waits for its partitions for {now - self._unsettled_at:.0f} s")
        return True


class SilenceWatch:
    """Ends the worker if one of its parts shows no sign of life. A failure is a sign of life, too."""

    def __init__(self, alive_at: Callable[[], float], name: str) -> None:
        """Watch a part; ``alive_at()`` returns the time of its last sign of life, by the monotonic clock."""
        self._alive_at = alive_at
        self._name = name
        self._watched_since = self._looked_at = time.monotonic()

    async def look(self) -> None:
        """Look once. Time without a look does not count: the whole process was stopped."""
        now = time.monotonic()
        if now - self._looked_at > 2 * LOOK_SECONDS:
            self._watched_since = now
        self._looked_at = now
        silent_seconds = now - max(self._alive_at(), self._watched_since)
        if silent_seconds > SILENT_SECONDS:
            end_process(f"{self._name} shows no sign of life for {silent_seconds:.0f} s")

    async def check(self) -> None:
        """Raise NotReady if there was no sign of life for a while."""
        silent_seconds = time.monotonic() - self._alive_at()
        if silent_seconds > QUIET_SECONDS:
            raise NotReady(f"{self._name} shows no sign of life for {silent_seconds:.0f} s")
