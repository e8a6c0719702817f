"""A user's feed as Postgres has it: what the topics' events are checked against and filled up from."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from eshop.contracts.proto import shared_v1_pb2
from gateway.feed import frames
from gateway.feed.frames import Frame, Since, Stream
from gateway.services.upstream import Upstream

#: Frames of one read.
PAGE_MAX = 500
#: Reads of one service at a time. However many feeds want one at once, the others wait in line, which no
#: deadline counts: all at the same time they would keep each other from being answered within theirs.
READS_MAX = 8


@dataclass(frozen=True, slots=True)
class Page:
    """Frames in order, right after the number asked from, and the stream's last number then."""

    frames: Sequence[Frame]
    head_feed_number: int


class History(Protocol):
    """What a feed needs of Postgres. Failures are raised as Problems."""

    async def read(self, stream: Stream, user_id: str, after_feed_number: int) -> Page:
        """Return the first frames after a number."""

    async def heads(self, stream: Stream, user_ids: Sequence[str]) -> Sequence[int]:
        """Return the last number of each user's stream now."""


async def number_before(
    history: History, stream: Stream, user_id: str, head_feed_number: int, since: Since
) -> int:
    """Return the last feed number, up to the head, from before a time; 0: none. History is read backwards."""
    first = head_feed_number + 1
    while first > 1:
        page = await history.read(stream, user_id, max(0, first - 1 - PAGE_MAX))
        newer = (
            frame.feed_number
            for frame in page.frames
            if frame.feed_number < first and frame.fields["at"] >= since.at()
        )
        oldest = next(newer, first)
        if not page.frames or oldest > page.frames[0].feed_number:
            return oldest - 1
        first = oldest
    return 0


class ServicesHistory:
    """The history as the two services answer it."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._lines = {stream: asyncio.Semaphore(READS_MAX) for stream in Stream}

    async def read(self, stream: Stream, user_id: str, after_feed_number: int) -> Page:
        """Return the first frames after a number."""
        request = shared_v1_pb2.ReadFeedRequest(
            user_id=user_id, after_feed_number=after_feed_number, limit=PAGE_MAX
        )
        up = self._upstream
        async with self._lines[stream]:
            if stream is Stream.ORDERS:
                orders = await up.call("orders.ReadFeed", up.orders.ReadFeed, request)
                return Page([frames.of_order_history(row) for row in orders.frames], orders.head_feed_number)
            wallet = await up.call("payments.ReadFeed", up.payments.ReadFeed, request)
            return Page([frames.of_wallet_history(row) for row in wallet.frames], wallet.head_feed_number)

    async def heads(self, stream: Stream, user_ids: Sequence[str]) -> Sequence[int]:
        """Return the last number of each user's stream now."""
        request = shared_v1_pb2.FeedHeadsRequest(user_ids=user_ids)
        up = self._upstream
        async with self._lines[stream]:
            if stream is Stream.ORDERS:
                reply = await up.call("orders.FeedHeads", up.orders.FeedHeads, request)
            else:
                reply = await up.call("payments.FeedHeads", up.payments.FeedHeads, request)
        return reply.head_feed_numbers
