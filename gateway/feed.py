"""One connection's feed: from frames as they happen to come, and history, to the exact sequence.

The hub offers frames from the moment the feed is attached; they are kept until `run` has sent what history
has. After that only the next number of a stream goes out: a lower one is dropped, a higher one makes it read
history.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from enum import Enum

from gateway.frames import Frame, Position, Stream, hello
from gateway.history import History
from gateway.metrics import Metrics
from gateway.problems import Problem

#: Frames that wait for a slow client. One more ends the connection.
QUEUE_MAX = 1_000
#: For how long the client's socket may refuse a single frame.
SEND_SECONDS_MAX = 10.0

Send = Callable[[str], Awaitable[None]]


class End(Enum):
    """Why we end a feed. In each case the client may reconnect and resume from its last ``id``."""

    SLOW = "slow"
    #: History could not be read, or was behind an event.
    GAP = "gap"
    SHUTDOWN = "shutdown"


class Feed:
    """A user's frames on their way to one connection. ``shown`` hears of each one that was sent."""

    def __init__(
        self, user_id: str, history: History, metrics: Metrics, shown: Callable[[str, Frame], None]
    ) -> None:
        self.user_id = user_id
        self._history = history
        self._metrics = metrics
        self._shown = shown
        self._queue: deque[Frame] = deque()
        self._head = Position()
        self._position = Position()
        self._wake = asyncio.Event()
        self._end: End | None = None
        self._sending: asyncio.Timeout | None = None

    def offer(self, frame: Frame) -> None:
        """Take a live frame. Never waits."""
        if len(self._queue) >= QUEUE_MAX:
            self.end(End.SLOW)
            return
        self._queue.append(frame)
        self._wake.set()

    def notice_head(self, head: Position) -> None:
        """Learn how far the streams reach now: what is missing is read from history."""
        self._head = Position(max(head.orders, self._head.orders), max(head.wallet, self._head.wallet))
        self._wake.set()

    def end(self, why: End) -> None:
        """End the feed, even in the middle of a frame its client does not take; the first reason counts."""
        if self._end is not None:
            return
        self._end = why
        self._queue.clear()
        self._wake.set()
        if self._sending is not None and not self._sending.expired():
            self._sending.reschedule(asyncio.get_running_loop().time())

    async def run(self, start: Position, send: Send) -> End:
        """Send hello and then everything after ``start``, in order, until the feed ends; return why."""
        self._position = start
        try:
            await self._send(send, hello(start))
            while self._end is None:
                await self._drain(send)
                await self._wake.wait()
                self._wake.clear()
        except Problem:
            self.end(End.GAP)
        except TimeoutError:
            self.end(End.SLOW)
        assert self._end is not None, "the loop ends for a reason"
        return self._end

    async def _drain(self, send: Send) -> None:
        for stream in Stream:
            if self._head.of(stream) > self._position.of(stream):
                await self._refill(stream, send)
        while self._queue and self._end is None:
            frame = self._queue.popleft()
            if frame.seq > self._position.of(frame.stream) + 1:
                await self._refill(frame.stream, send)
            if frame.seq > self._position.of(frame.stream):
                await self._push(frame, send)

    async def _refill(self, stream: Stream, send: Send) -> None:
        """Send everything history has after the present position."""
        self._metrics.refills.inc()
        while self._end is None:
            page = await self._history.read(stream, self.user_id, self._position.of(stream))
            for frame in page.frames:
                if frame.seq > self._position.of(stream):
                    await self._push(frame, send)
            if not page.frames or self._position.of(stream) >= page.head_seq:
                return

    async def _push(self, frame: Frame, send: Send) -> None:
        if frame.seq != self._position.of(frame.stream) + 1:
            raise Problem("unavailable", "History is behind the events.")
        self._position = self._position.at(frame.stream, frame.seq)
        await self._send(send, frame.render(self._position))
        self._metrics.frames.labels(frame.stream.value).inc()
        self._shown(self.user_id, frame)

    async def _send(self, send: Send, text: str) -> None:
        if self._end is not None:
            return
        try:
            async with asyncio.timeout(SEND_SECONDS_MAX) as self._sending:
                await send(text)
        finally:
            self._sending = None
