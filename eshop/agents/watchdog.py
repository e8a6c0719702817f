"""Ends a worker that has work and does none: whatever it hangs in, a restarted one goes on."""

import time
from collections.abc import Callable
from typing import NoReturn

from eshop.exit import end_process

#: Far longer than any attempt may take: statements and locks are bounded to seconds.
STALLED_SECONDS = 30.0


class Watchdog:
    """Looks at each partition now and then. An attempt that fails is a sign of life, too."""

    def __init__(self, name: str, end: Callable[[str], NoReturn] = end_process) -> None:
        self._name = name
        self._end = end
        self._seen: dict[int, tuple[int, float]] = {}

    def forget(self) -> None:
        """Begin anew: nothing could be seen for a while."""
        self._seen.clear()

    def look(self, partition: int, done: int, end: int, tried_at: float) -> None:
        """End the process where offsets ``done`` to ``end`` wait and nothing was tried for too long."""
        now = time.monotonic()
        before, since = self._seen.get(partition, (-1, now))
        if done != before or done >= end:
            self._seen[partition] = (done, now)
        elif now - max(since, tried_at) > STALLED_SECONDS:
            self._end(
                f"{self._name} makes no progress: partition {partition} stands at {done} of {end}"
                f" for {now - since:.0f} s"
            )
