"""A user's feed as Postgres has it: what the topics' events are checked against and filled up from."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from eshop.contracts.proto import shared_v1_pb2
from gateway import frames
from gateway.frames import Frame, Position, Stream
from gateway.upstream import Upstream

#: Frames of one read.
PAGE_MAX = 500


@dataclass(frozen=True, slots=True)
class Page:
    """Frames in order, right after the number asked from, and the stream's last number then."""

    frames: Sequence[Frame]
    head_seq: int


class History(Protocol):
    """What a feed needs of Postgres. Failures are raised as Problems."""

    async def read(self, stream: Stream, user_id: str, after_seq: int) -> Page:
        """Return the first frames after a number."""

    async def heads(self, user_ids: Sequence[str]) -> Sequence[Position]:
        """Return where each user's streams end now."""


class ServicesHistory:
    """The history as the two services answer it."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def read(self, stream: Stream, user_id: str, after_seq: int) -> Page:
        """Return the first frames after a number."""
        request = shared_v1_pb2.ReadFeedRequest(user_id=user_id, after_seq=after_seq, limit=PAGE_MAX)
        up = self._upstream
        if stream is Stream.ORDERS:
            orders = await up.call("orders.ReadFeed", up.orders.ReadFeed, request)
            return Page([frames.of_order_history(row) for row in orders.frames], orders.head_seq)
        wallet = await up.call("payments.ReadFeed", up.payments.ReadFeed, request)
        return Page([frames.of_wallet_history(row) for row in wallet.frames], wallet.head_seq)

    async def heads(self, user_ids: Sequence[str]) -> Sequence[Position]:
        """Return where each user's streams end now. Both services are asked at once."""
        request = shared_v1_pb2.FeedHeadsRequest(user_ids=user_ids)
        up = self._upstream
        orders, wallets = await asyncio.gather(
            up.call("orders.FeedHeads", up.orders.FeedHeads, request),
            up.call("payments.FeedHeads", up.payments.FeedHeads, request),
        )
        pairs = zip(orders.head_seqs, wallets.head_seqs, strict=True)
        return [Position(order_seq, wallet_seq) for order_seq, wallet_seq in pairs]
