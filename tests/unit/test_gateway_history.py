"""Reading history for many feeds at once, and opening a feed when one service does not answer."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import pytest

from eshop.contracts.proto import shared_v1_pb2
from eshop.contracts.services import SERVICES
from gateway.feed import opening
from gateway.feed.connection import End
from gateway.feed.frames import Position, Since, Stream
from gateway.feed.history import Page
from gateway.feed.hub import Hub
from gateway.feed.opening import known_heads, position_now
from gateway.http.problems import Problem
from gateway.metrics import Metrics
from gateway.services.history import READS_MAX, ServicesHistory

FEEDS = 1_000
#: Hello, and three frames of each stream.
SENT = 1 + 3 * len(Stream)


class BusyServices:
    """All services, each of which fails when it is asked more than it can do at once."""

    def __init__(self) -> None:
        self.running: Counter[str] = Counter()
        self.stubs = dict.fromkeys(SERVICES, self)
        self.ReadFeed = self.FeedHeads = None

    async def call(self, name: str, _method: object, request: Any) -> Any:
        service = name.partition(".")[0]
        self.running[service] += 1
        try:
            await asyncio.sleep(0)
            if self.running[service] > READS_MAX:
                raise Problem("slow")
            if isinstance(request, shared_v1_pb2.FeedHeadsRequest):
                return shared_v1_pb2.FeedHeadsReply(head_feed_numbers=[3] * len(request.user_ids))
            proto = import_module(f"eshop.contracts.proto.{service}_v1_pb2")
            rows = [{"feed_number": number} for number in range(request.after_feed_number + 1, 4)]
            return proto.ReadFeedReply(frames=rows, head_feed_number=3)
        finally:
            self.running[service] -= 1


async def test_a_thousand_feeds_with_a_gap_do_not_close_each_other() -> None:
    history = ServicesHistory(BusyServices())  # type: ignore[arg-type]
    hub = Hub(
        history,
        Metrics(),
        noticed=lambda *_: None,
        shown=lambda *_: None,
        order_final=lambda _: None,
    )
    sent: Counter[int] = Counter()
    complete = asyncio.Event()

    async def one(number: int) -> End:
        async def send(_text: str) -> None:
            sent[number] += 1
            if sent.total() == FEEDS * SENT:
                complete.set()

        with hub.attach(f"user-{number}") as feed:
            for stream in Stream:
                feed.notice_head(stream, 3)
            return await feed.run(Position(), send)

    feeds = [asyncio.create_task(one(number)) for number in range(FEEDS)]
    async with asyncio.timeout(60):
        await complete.wait()
    hub.close()
    assert set(await asyncio.gather(*feeds)) == {End.SHUTDOWN}
    assert set(sent.values()) == {SENT}


class HalfHistory:
    """Heads by stream; a stream may fail, or be held until it is let go. Streams that are not named fail."""

    def __init__(self, **heads: int | Problem | asyncio.Event) -> None:
        self._heads: dict[Stream, int | Problem | asyncio.Event] = {
            **dict.fromkeys(Stream, Problem("unavailable")),
            **{Stream(name): head for name, head in heads.items()},
        }

    async def heads(self, stream: Stream, user_ids: Sequence[str]) -> Sequence[int]:
        head = self._heads[stream]
        if isinstance(head, asyncio.Event):
            await head.wait()
            return [9]
        if isinstance(head, Problem):
            raise head
        return [head]

    async def read(self, stream: Stream, user_id: str, after_feed_number: int) -> Page:
        raise AssertionError("not read")


async def test_a_feed_opens_with_both_heads_if_both_are_told() -> None:
    heads = await known_heads(HalfHistory(orders=4, wallet=7), "ann")
    assert heads == {Stream.ORDERS: 4, Stream.WALLET: 7}
    start = position_now(heads)
    assert (start.of(Stream.ORDERS), start.of(Stream.WALLET)) == (4, 7)


@pytest.mark.parametrize("away", [Problem("unavailable"), asyncio.Event()])
async def test_a_feed_opens_when_either_service_answers(
    away: Problem | asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "SLOWER_SECONDS_MAX", 0.01)
    heads = await known_heads(HalfHistory(orders=4, wallet=away), "ann")
    assert heads == {Stream.ORDERS: 4}
    start = position_now(heads)
    assert start.orders == 4
    assert isinstance(start.wallet, Since)
    assert await known_heads(HalfHistory(orders=away, wallet=7), "ann") == {Stream.WALLET: 7}


async def test_the_slower_service_is_waited_for_a_moment() -> None:
    slow = asyncio.Event()
    opened = asyncio.create_task(known_heads(HalfHistory(orders=4, wallet=slow), "ann"))
    await asyncio.sleep(0)
    slow.set()
    assert await opened == {Stream.ORDERS: 4, Stream.WALLET: 9}


async def test_a_feed_does_not_open_if_neither_service_answers() -> None:
    history = HalfHistory(orders=Problem("slow"), wallet=Problem("unavailable"))
    with pytest.raises(Problem):
        await known_heads(history, "ann")
