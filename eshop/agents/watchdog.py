"""Ends a worker that has work and does none: whatever it hangs in, a restarted one goes on."""

import logging
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NoReturn, cast

from faust.types import TP

from eshop.agents.periodic import register_periodic
from eshop.exit import end_process
from eshop.web.app import ServiceApp
from eshop.web.consumer import SeekingConsumer

logger = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
#: Far longer than any attempt may take: statements and locks are bounded to seconds.
STALLED_SECONDS = 30.0
#: One partition may have to wait for others that have a backlog, but not for ever.
STARVED_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a partition is done, where its log ends, and when it was last tried, by the monotonic clock."""

    partition: TP
    done: int
    end: int
    tried_at: float = 0.0


class Watchdog:
    """Looks at each partition now and then. An attempt that fails is a sign of life, too."""

    def __init__(self, name: str, end: Callable[[str], NoReturn] = end_process) -> None:
        self._name = name
        self._end = end
        self._seen: dict[TP, tuple[int, float]] = {}
        self._looked_at = 0.0
        self._alive_at = 0.0

    def forget(self) -> None:
        """Begin anew: nothing could be seen for a while."""
        self._seen.clear()

    def look(self, standings: Sequence[Standing]) -> None:
        """End the process where messages wait and nothing was done or tried for too long."""
        now = time.monotonic()
        if now - self._looked_at > 2 * LOOK_SECONDS:  # what was asked hung, with the broker or the database
            self.forget()
        self._looked_at = now
        idle = [(at, self._idle_since(at, now)) for at in standings]
        self._seen = {at.partition: self._seen[at.partition] for at in standings}
        for at, since in idle:
            limit = STARVED_SECONDS if now - self._alive_at <= STALLED_SECONDS else STALLED_SECONDS
            if now - since > limit:
                self._end(
                    f"{self._name} makes no progress: {at.partition.topic}/{at.partition.partition} stands at"
                    f" {at.done} of {at.end} for {now - since:.0f} s"
                )

    def _idle_since(self, at: Standing, now: float) -> float:
        """Return when the partition last gave a sign of life: now, where it has nothing to do."""
        done, since = self._seen.get(at.partition, (-1, now))
        self._alive_at = max(self._alive_at, at.tried_at if at.done == done else now)
        if at.done != done or at.done >= at.end:
            since = now
        self._seen[at.partition] = (at.done, since)
        return max(since, at.tried_at)


def register_watchdog(
    app: ServiceApp,
    topics: Collection[str],
    standings: Callable[[SeekingConsumer], Awaitable[Sequence[Standing]]],
    name: str,
) -> None:
    """Have the partitions of an agent watched. ``standings`` may raise while there is nothing to be seen."""
    watchdog = Watchdog(name)

    async def look() -> None:
        consumer = cast("SeekingConsumer", app.consumer)
        if any(consumer.topic_partitions(topic) == 0 for topic in topics):  # None: not known yet
            # Faust would ignore it from now on, even when it is there again.
            end_process(f"{name}: a topic is gone; it is made anew at the next start")
        try:
            found = await standings(consumer)
        except Exception as error:  # noqa: BLE001  of the database or the broker: both come back
            logger.info("%s can't see how far it is: %r", name, error)
            found = ()
        if not found or app.rebalancing:
            watchdog.forget()
            return
        watchdog.look(found)

    register_periodic(app, LOOK_SECONDS, look, f"the watch on {name}")
