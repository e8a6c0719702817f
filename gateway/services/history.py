"""The history of feeds, read from the services."""

import asyncio
from collections.abc import Sequence

from eshop.contracts.proto import shared_v1_pb2
from gateway.feed import frames
from gateway.feed.frames import Stream
from gateway.feed.history import PAGE_MAX, Page
from gateway.services.upstream import Upstream

#: Concurrent reads of one service. Other reads wait in a queue; their deadline begins after it. Without the
#: bound, all of a thousand reads would miss their deadlines.
READS_MAX = 8


class ServicesHistory:
    """The history of feeds as the services return it."""

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
