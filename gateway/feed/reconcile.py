"""Compares open feeds with Postgres: after every new attachment to Kafka, and at a slow pace always.

The slow sweep is the safety net for losses that no reader can notice, such as a topic without its tail.
"""

import asyncio
import logging
from collections.abc import Sequence

from gateway.feed.frames import Stream
from gateway.feed.history import History
from gateway.feed.hub import Hub
from gateway.http.problems import Problem

SWEEP_SECONDS = 15.0
AGAIN_SECONDS = 1.0
USERS_PER_CALL_MAX = 500

logger = logging.getLogger(__name__)


class FeedReconciler:
    """The task that tells feeds the heads of their streams."""

    def __init__(self, hub: Hub, history: History, sweep_seconds: float = SWEEP_SECONDS) -> None:
        self._hub = hub
        self._history = history
        self._sweep_seconds = sweep_seconds
        self._soon = asyncio.Event()

    def soon(self) -> None:
        """Sweep now: events may have been missed."""
        self._soon.set()

    async def run(self) -> None:
        """Sweep until cancelled; a failed sweep is repeated."""
        pause_seconds = self._sweep_seconds
        while True:
            try:
                async with asyncio.timeout(pause_seconds):
                    await self._soon.wait()
            except TimeoutError:
                pass
            self._soon.clear()
            try:
                await self.sweep()
                pause_seconds = self._sweep_seconds
            except Problem:
                pause_seconds = AGAIN_SECONDS
            except Exception:
                logger.exception("a sweep failed")

    async def sweep(self) -> None:
        """Read the heads of all users with a feed open here; raise Problem, after the other stream."""
        watched = self._hub.users()
        swept = await asyncio.gather(
            *(self._sweep(stream, watched) for stream in Stream), return_exceptions=True
        )
        for failure in swept:
            if failure is not None:
                raise failure

    async def _sweep(self, stream: Stream, watched: Sequence[str]) -> None:
        for first in range(0, len(watched), USERS_PER_CALL_MAX):
            users = watched[first : first + USERS_PER_CALL_MAX]
            for user_id, head_feed_number in zip(
                users, await self._history.heads(stream, users), strict=True
            ):
                self._hub.notice_head(user_id, stream, head_feed_number)
