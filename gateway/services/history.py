"""The history of feeds, read from the services."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from google.protobuf.message import Message

from eshop.contracts.proto import shared_v1_pb2
from eshop.contracts.services import SERVICES
from gateway.feed import frames
from gateway.feed.frames import Frame, Stream
from gateway.feed.history import PAGE_MAX, Page
from gateway.services.upstream import Upstream

#: Concurrent reads of one service. Other reads wait in a queue; their deadline begins after it. Without the
#: bound, all of a thousand reads would miss their deadlines.
READS_MAX = 8
#: What makes a frame of a row of the service's history, by stream.
_FRAMES: Mapping[Stream, Callable[[Any], Frame]] = MappingProxyType(
    {Stream.ORDERS: frames.of_order_history, Stream.WALLET: frames.of_wallet_history}
)


class ServicesHistory:
    """The history of feeds as the services return it."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._services = {Stream(service.stream): service.name for service in SERVICES.values()}
        self._lines = {stream: asyncio.Semaphore(READS_MAX) for stream in Stream}

    async def read(self, stream: Stream, user_id: str, after_feed_number: int) -> Page:
        """Return the first frames after a number."""
        request = shared_v1_pb2.ReadFeedRequest(
            user_id=user_id, after_feed_number=after_feed_number, limit=PAGE_MAX
        )
        reply = await self._call(stream, "ReadFeed", request)
        return Page([_FRAMES[stream](row) for row in reply.frames], reply.head_feed_number)

    async def heads(self, stream: Stream, user_ids: Sequence[str]) -> Sequence[int]:
        """Return the last number of each user's stream now."""
        reply = await self._call(stream, "FeedHeads", shared_v1_pb2.FeedHeadsRequest(user_ids=user_ids))
        heads: Sequence[int] = reply.head_feed_numbers
        return heads

    async def _call(self, stream: Stream, method: str, request: Message) -> Any:
        service = self._services[stream]
        async with self._lines[stream]:
            ask = getattr(self._upstream.stubs[service], method)
            return await self._upstream.call(f"{service}.{method}", ask, request)
