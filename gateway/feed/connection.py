"""A connection's feed: from frames in any order, and history, to the exact sequence.

The hub offers frames from the moment the feed is attached; they are kept until `run` has sent the history.
After that only the next number of a stream goes out: a lower number is dropped, a higher number starts a read
of the history.

A stream joins after its head is known: the head checks a cursor, and turns a time into a number. Until then
the other stream goes on alone, and the joining stream loses nothing, because history has its frames.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from enum import Enum

from gateway.feed.frames import Frame, Position, Since, Stream, hello
from gateway.feed.history import History, number_before
from gateway.http.problems import Problem
from gateway.metrics import Metrics

#: Frames that wait for a slow client. A further frame ends the connection.
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
    """A user's frames on their way to a connection. ``shown`` is called with each frame that was sent."""

    def __init__(
        self, user_id: str, history: History, metrics: Metrics, shown: Callable[[str, Frame], None]
    ) -> None:
        self.user_id = user_id
        self._history = history
        self._metrics = metrics
        self._shown = shown
        self._queue: deque[Frame] = deque()
        self._position = Position()
        #: The known head of each stream, and streams with a new head since the last attempt to join.
        self._heads = dict.fromkeys(Stream, 0)
        self._joinable: set[Stream] = set()
        self._joined: set[Stream] = set()
        self._wake = asyncio.Event()
        self._end: End | None = None
        self._waiting: asyncio.Timeout | None = None

    def offer(self, frame: Frame) -> None:
        """Take a live frame. Never waits."""
        if len(self._queue) >= QUEUE_MAX:
            self.end(End.SLOW)
            return
        self._queue.append(frame)
        self._wake.set()

    def notice_head(self, stream: Stream, head_feed_number: int) -> None:
        """Note the head of a stream: missing frames are read from history."""
        self._heads[stream] = max(head_feed_number, self._heads[stream])
        if stream not in self._joined:
            self._joinable.add(stream)
        self._wake.set()

    def end(self, why: End) -> None:
        """End the feed, even while it waits for its client or for history; the first reason counts."""
        if self._end is not None:
            return
        self._end = why
        self._queue.clear()
        self._wake.set()
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(asyncio.get_running_loop().time())

    async def run(self, start: Position, send: Send) -> End:
        """Send hello and then everything after ``start``, in order, until the feed ends; return why."""
        self._position = start
        try:
            for stream in Stream:
                if not isinstance(start.of(stream), Since):
                    await self._join(stream)
            await self._send(send, hello(self._position))
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

    async def _join(self, stream: Stream) -> None:
        """Find the number after which a stream starts, if its head is known; else wait for the next head."""
        if stream not in self._joinable or self._end is not None:
            return
        self._joinable.discard(stream)
        head_feed_number, mark = self._heads[stream], self._position.of(stream)
        if isinstance(mark, Since):
            try:
                async with self._until_end():
                    mark = await number_before(self._history, stream, self.user_id, head_feed_number, mark)
            except Problem:
                return
        # A cursor from the future is taken back to the head.
        self._position = self._position.at(stream, min(mark, head_feed_number))
        self._joined.add(stream)

    async def _drain(self, send: Send) -> None:
        for stream in Stream:
            await self._join(stream)
            if stream in self._joined and self._heads[stream] > self._number(stream):
                await self._refill(stream, send)
        while self._queue and self._end is None:
            frame = self._queue.popleft()
            if frame.stream not in self._joined:
                self._heads[frame.stream] = max(frame.feed_number, self._heads[frame.stream])
                continue
            if frame.feed_number > self._number(frame.stream) + 1:
                await self._refill(frame.stream, send)
            if frame.feed_number > self._number(frame.stream):
                await self._push(frame, send)

    async def _refill(self, stream: Stream, send: Send) -> None:
        """Send everything history has after the present position."""
        self._metrics.refills.inc()
        while self._end is None:
            async with self._until_end():
                page = await self._history.read(stream, self.user_id, self._number(stream))
            for frame in page.frames:
                if frame.feed_number > self._number(stream):
                    await self._push(frame, send)
            if not page.frames or self._number(stream) >= page.head_feed_number:
                return

    async def _push(self, frame: Frame, send: Send) -> None:
        if frame.feed_number != self._number(frame.stream) + 1:
            raise Problem("unavailable", "History is behind the events.")
        self._position = self._position.at(frame.stream, frame.feed_number)
        await self._send(send, frame.render(self._position))
        self._metrics.frames.labels(frame.stream.value).inc()
        self._shown(self.user_id, frame)

    def _number(self, stream: Stream) -> int:
        """Return the last number of a stream that has joined."""
        mark = self._position.of(stream)
        assert isinstance(mark, int), f"{stream} has not joined"
        return mark

    async def _send(self, send: Send, text: str) -> None:
        if self._end is None:
            async with self._until_end(SEND_SECONDS_MAX):
                await send(text)

    @asynccontextmanager
    async def _until_end(self, seconds_max: float | None = None) -> AsyncIterator[None]:
        """Let the body wait until the feed is ended, or for the time given; raise TimeoutError then."""
        try:
            async with asyncio.timeout(seconds_max) as self._waiting:
                yield
        finally:
            self._waiting = None
