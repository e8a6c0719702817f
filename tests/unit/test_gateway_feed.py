"""A feed's sequence: gap-free, in order, nothing twice, nobody else's; and how it ends."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import orjson
import pytest

from gateway.feed import connection as feed_module
from gateway.feed.connection import End
from gateway.feed.frames import Frame, Position, Since, Stream
from gateway.feed.history import PAGE_MAX, Page, number_before
from gateway.feed.hub import CONNECTIONS_PER_USER_MAX, Hub
from gateway.feed.reconcile import FeedReconciler
from gateway.http.problems import Problem
from gateway.http.views import time_text
from gateway.metrics import Metrics


def order_frame(seq: int, status: str = "FINISHED") -> Frame:
    return Frame(
        Stream.ORDERS, seq, f"order-{seq}", seq, {"type": "order.status", "status": status, "version": seq}
    )


def wallet_frame(seq: int) -> Frame:
    return Frame(Stream.WALLET, seq, "", seq, {"type": "wallet.balance", "version": seq})


MAKE: dict[Stream, Callable[[int], Frame]] = {Stream.ORDERS: order_frame, Stream.WALLET: wallet_frame}


class MemoryHistory:
    """Postgres' view: per user how far each stream reaches."""

    def __init__(self, page_max: int = 3) -> None:
        self.reach: dict[str, Position] = {}
        self.page_max = page_max
        self.reads: list[tuple[Stream, int]] = []
        self.is_down = False

    async def read(self, stream: Stream, user_id: str, after_feed_number: int) -> Page:
        self.reads.append((stream, after_feed_number))
        if self.is_down:
            raise Problem("unavailable")
        head_feed_number = self.head(stream, user_id)
        last = min(head_feed_number, after_feed_number + self.page_max)
        return Page([MAKE[stream](seq) for seq in range(after_feed_number + 1, last + 1)], head_feed_number)

    async def heads(self, stream: Stream, user_ids: Sequence[str]) -> Sequence[int]:
        return [self.head(stream, user_id) for user_id in user_ids]

    def head(self, stream: Stream, user_id: str) -> int:
        head_feed_number = self.reach.get(user_id, Position()).of(stream)
        assert isinstance(head_feed_number, int)
        return head_feed_number


class Client:
    """The far end of a connection: what arrived, as JSON."""

    def __init__(self) -> None:
        self.arrived: asyncio.Queue[dict[str, object]] = asyncio.Queue()

    async def send(self, text: str) -> None:
        self.arrived.put_nowait(orjson.loads(text))

    async def take(self, count: int) -> list[dict[str, object]]:
        return [await self.arrived.get() for _ in range(count)]

    async def ids(self, count: int) -> list[object]:
        return [frame["id"] for frame in await self.take(count)]


class Shop:
    """A hub over a history, with connections."""

    def __init__(self) -> None:
        self.history = MemoryHistory()
        self.final: list[str] = []
        self.shown: list[tuple[str, int]] = []
        self.noticed: list[tuple[str, int]] = []
        self.hub = Hub(
            self.history,
            Metrics(),
            noticed=lambda user_id, frame: self.noticed.append((user_id, frame.feed_number)),
            shown=lambda user_id, frame: self.shown.append((user_id, frame.feed_number)),
            order_final=self.final.append,
        )

    def happen(self, user_id: str, *frames: Frame) -> None:
        """Let events be committed and arrive."""
        for frame in frames:
            reach = self.history.reach.get(user_id, Position())
            head_feed_number = max(frame.feed_number, self.history.head(frame.stream, user_id))
            self.history.reach[user_id] = reach.at(frame.stream, head_feed_number)
            self.hub.dispatch(user_id, frame)

    @asynccontextmanager
    async def connected(
        self, user_id: str, start: Position | None = None
    ) -> AsyncIterator[tuple[Client, "asyncio.Task[End]"]]:
        client = Client()
        with self.hub.attach(user_id) as feed:
            head = self.history.reach.get(user_id, Position())
            for stream in Stream:
                feed.notice_head(stream, self.history.head(stream, user_id))
            running = asyncio.create_task(feed.run(head if start is None else start, client.send))
            try:
                yield client, running
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)


async def test_hello_comes_first_and_says_where_the_feed_starts() -> None:
    shop = Shop()
    shop.history.reach["ann"] = Position(42, 17)
    async with shop.connected("ann") as (client, _):
        assert await client.take(1) == [{"id": "42.17", "type": "hello", "cursor": "42.17"}]
        shop.happen("ann", order_frame(43), wallet_frame(18), order_frame(44))
        assert await client.ids(3) == ["43.17", "43.18", "44.18"]
    assert shop.history.reads == []


async def test_everything_after_the_cursor_comes_before_what_is_live() -> None:
    shop = Shop()
    shop.history.reach["ann"] = Position(10, 5)
    async with shop.connected("ann", Position(2, 4)) as (client, _):
        shop.happen("ann", order_frame(11))
        assert await client.ids(1) == ["2.4"]
        frames = await client.take(10)
    assert [(frame["stream"], frame["seq"]) for frame in frames] == [
        *(("orders", seq) for seq in range(3, 12)),
        ("wallet", 5),
    ]


async def test_a_frame_from_a_topic_and_from_history_is_pushed_once() -> None:
    shop = Shop()
    async with shop.connected("ann") as (client, _):
        shop.happen("ann", order_frame(1), order_frame(1), order_frame(2), order_frame(1), order_frame(3))
        assert await client.ids(4) == ["0.0", "1.0", "2.0", "3.0"]
        shop.happen("ann", wallet_frame(1))
        assert await client.ids(1) == ["3.1"]


async def test_a_gap_is_filled_from_history() -> None:
    shop = Shop()
    async with shop.connected("ann") as (client, _):
        shop.happen("ann", order_frame(1))
        await client.take(2)
        shop.history.reach["ann"] = Position(7, 0)
        shop.happen("ann", order_frame(8))
        assert await client.ids(7) == [f"{seq}.0" for seq in range(2, 9)]
    assert shop.history.reads[0] == (Stream.ORDERS, 1)


async def test_another_users_frames_never_come() -> None:
    shop = Shop()
    async with shop.connected("ann") as (ann, _), shop.connected("bob") as (bob, _):
        for seq in range(1, 4):
            shop.happen("bob", order_frame(seq))
        shop.happen("ann", order_frame(1))
        assert await ann.ids(2) == ["0.0", "1.0"]
        assert await bob.ids(4) == ["0.0", "1.0", "2.0", "3.0"]
        assert ann.arrived.empty()
    assert ("ann", 2) not in shop.shown
    assert shop.noticed == [("bob", 1), ("bob", 2), ("bob", 3), ("ann", 1)]


async def test_every_connection_of_a_user_gets_everything() -> None:
    shop = Shop()
    async with shop.connected("ann") as (one, _), shop.connected("ann") as (two, _):
        shop.happen("ann", order_frame(1))
        assert await one.ids(2) == await two.ids(2) == ["0.0", "1.0"]


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_is_lost_repeated_or_late_the_sequence_is_exact(seed: int) -> None:
    chance = random.Random(seed)
    shop = Shop()
    sweep = FeedReconciler(shop.hub, shop.history)
    async with shop.connected("ann") as (client, _):
        committed = {Stream.ORDERS: 0, Stream.WALLET: 0}
        for _ in range(60):
            stream = chance.choice(list(Stream))
            committed[stream] += 1
            reach = shop.history.reach.get("ann", Position())
            shop.history.reach["ann"] = reach.at(stream, committed[stream])
            if chance.random() < 0.7:
                shop.hub.dispatch("ann", MAKE[stream](committed[stream]))
            if chance.random() < 0.3:
                shop.hub.dispatch("ann", MAKE[stream](chance.randint(1, committed[stream])))
            if chance.random() < 0.3:
                await asyncio.sleep(0)
        await sweep.sweep()
        frames = (await client.take(61))[1:]
    for stream in Stream:
        seqs = [frame["seq"] for frame in frames if frame["stream"] == stream]
        assert seqs == list(range(1, committed[stream] + 1)), f"seed {seed}"


async def test_a_sweep_finds_what_no_event_told() -> None:
    shop = Shop()
    async with shop.connected("ann") as (client, _):
        await client.take(1)
        shop.history.reach["ann"] = Position(2, 1)
        await FeedReconciler(shop.hub, shop.history).sweep()
        assert await client.ids(3) == ["1.0", "2.0", "2.1"]


async def test_a_sweep_that_fails_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.feed.reconcile.AGAIN_SECONDS", 0.0)
    shop = Shop()
    failures = iter([Problem("unavailable"), ValueError("a bug")])
    heads = shop.history.heads

    async def failing(stream: Stream, user_ids: Sequence[str]) -> Sequence[int]:
        for failure in failures:
            raise failure
        return await heads(stream, user_ids)

    async with shop.connected("ann") as (client, _):
        await client.take(1)
        monkeypatch.setattr(shop.history, "heads", failing)
        shop.history.reach["ann"] = Position(1, 0)
        sweep = FeedReconciler(shop.hub, shop.history)
        sweep.soon()
        running = asyncio.create_task(sweep.run())
        assert await client.ids(1) == ["1.0"]
        running.cancel()


def at(seconds: int) -> str:
    return time_text(datetime.fromtimestamp(seconds, UTC))


class TimedHistory(MemoryHistory):
    """A history whose wallet frames happened one second after the other, each at its number."""

    def __init__(self, page_max: int = PAGE_MAX) -> None:
        super().__init__(page_max)

    async def read(self, stream: Stream, user_id: str, after_feed_number: int) -> Page:
        page = await super().read(stream, user_id, after_feed_number)
        timed = [
            replace(frame, fields={**frame.fields, "at": at(frame.feed_number)}) for frame in page.frames
        ]
        return Page(timed, page.head_feed_number)


@pytest.mark.parametrize("head_feed_number", [0, 1, 4, 500, 501, 1300])
@pytest.mark.parametrize("since", [0, 1, 2, 5, 499, 500, 501, 800, 2000])
async def test_a_time_is_the_number_before_it(head_feed_number: int, since: int) -> None:
    history = TimedHistory()
    history.reach["ann"] = Position(0, head_feed_number)
    found = await number_before(history, Stream.WALLET, "ann", head_feed_number, Since(since * 1000))
    assert found == min(head_feed_number, max(0, since - 1))


async def test_a_stream_whose_service_is_away_joins_when_its_head_is_known_and_loses_nothing() -> None:
    shop = Shop()
    shop.history = TimedHistory()
    shop.hub = Hub(
        shop.history,
        Metrics(),
        noticed=lambda *_: None,
        shown=lambda *_: None,
        order_final=lambda _: None,
    )
    shop.history.reach["ann"] = Position(7, 40)
    with shop.hub.attach("ann") as feed:
        client = Client()
        feed.notice_head(Stream.ORDERS, 7)
        running = asyncio.create_task(feed.run(Position(7, Since(41_000)), client.send))
        assert await client.take(1) == [{"id": "7.@41000", "type": "hello", "cursor": "7.@41000"}]
        shop.happen("ann", wallet_frame(41), order_frame(8))
        assert await client.ids(1) == ["8.@41000"], "the other stream does not wait"
        shop.history.reach["ann"] = Position(8, 43)  # and two that no event told
        await FeedReconciler(shop.hub, shop.history).sweep()
        assert await client.ids(3) == ["8.41", "8.42", "8.43"]
        shop.happen("ann", wallet_frame(44))
        assert await client.ids(1) == ["8.44"]
        shop.hub.close()
        assert await running is End.SHUTDOWN


async def test_a_joining_stream_is_tried_again_with_the_next_head() -> None:
    shop = Shop()
    shop.history.is_down = True
    with shop.hub.attach("ann") as feed:
        client = Client()
        feed.notice_head(Stream.ORDERS, 0)
        running = asyncio.create_task(feed.run(Position(0, Since(1_000)), client.send))
        feed.notice_head(Stream.WALLET, 2)
        await client.take(1)
        while not shop.history.reads:
            await asyncio.sleep(0)
        shop.history = TimedHistory()
        feed._history = shop.history
        shop.history.reach["ann"] = Position(0, 2)
        feed.notice_head(Stream.WALLET, 2)
        assert await client.ids(2) == ["0.1", "0.2"]
        shop.hub.close()
        assert await running is End.SHUTDOWN


async def test_a_cursor_waits_for_its_streams_head_and_is_exact() -> None:
    shop = Shop()
    shop.history.reach["ann"] = Position(1, 3)
    with shop.hub.attach("ann") as feed:
        client = Client()
        feed.notice_head(Stream.ORDERS, 1)
        running = asyncio.create_task(feed.run(Position(0, 2), client.send))
        assert await client.ids(2) == ["0.2", "1.2"]
        shop.happen("ann", wallet_frame(2), wallet_frame(4))
        feed.notice_head(Stream.WALLET, 3)
        assert await client.ids(2) == ["1.3", "1.4"]
        shop.hub.close()
        assert await running is End.SHUTDOWN


async def test_ending_interrupts_a_read_of_history() -> None:
    shop = Shop()
    reading = asyncio.Event()

    async def read(stream: Stream, user_id: str, after_feed_number: int) -> Page:
        reading.set()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    shop.history.read = read  # type: ignore[method-assign]
    shop.history.reach["ann"] = Position(5, 0)
    async with shop.connected("ann", Position()) as (_, running):
        await reading.wait()
        shop.hub.close()
        async with asyncio.timeout(1):
            assert await running is End.SHUTDOWN


async def test_a_client_that_lags_too_far_is_told_to_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "QUEUE_MAX", 5)
    shop = Shop()
    with shop.hub.attach("ann") as feed:
        stuck = asyncio.Event()

        async def send(text: str) -> None:
            stuck.set()
            await asyncio.sleep(0)

        running = asyncio.create_task(feed.run(Position(), send))
        await stuck.wait()
        shop.happen("ann", *(order_frame(seq) for seq in range(1, 8)))
        assert await running is End.SLOW


async def test_a_socket_that_takes_nothing_ends_the_feed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "SEND_SECONDS_MAX", 0.01)
    shop = Shop()

    async def send(text: str) -> None:
        await asyncio.Event().wait()

    with shop.hub.attach("ann") as feed:
        assert await feed.run(Position(), send) is End.SLOW


async def test_a_gap_that_history_cannot_fill_ends_the_feed() -> None:
    shop = Shop()
    async with shop.connected("ann") as (client, running):
        await client.take(1)
        shop.hub.dispatch("ann", order_frame(5))
        assert await running is End.GAP
    assert client.arrived.empty(), "nothing is skipped silently"


async def test_a_history_that_is_down_ends_the_feed() -> None:
    shop = Shop()
    shop.history.reach["ann"] = Position(5, 0)
    shop.history.is_down = True
    async with shop.connected("ann", Position()) as (_, running):
        assert await running is End.GAP


async def test_closing_ends_every_feed_and_opens_none() -> None:
    shop = Shop()
    async with shop.connected("ann") as (_, one), shop.connected("bob") as (_, two):
        shop.hub.close()
        assert (await one, await two) == (End.SHUTDOWN, End.SHUTDOWN)
    with pytest.raises(Problem) as refused, shop.hub.attach("ann"):
        pass
    assert refused.value.code == "unavailable"


async def test_a_users_connections_are_bounded_and_others_are_not_touched() -> None:
    shop = Shop()
    opened = [shop.hub.attach("ann") for _ in range(CONNECTIONS_PER_USER_MAX)]
    for one in opened:
        one.__enter__()
    with pytest.raises(Problem) as refused, shop.hub.attach("ann"):
        pass
    assert refused.value.code == "too-many-connections"
    with shop.hub.attach("bob"):
        pass
    opened[0].__exit__(None, None, None)
    with shop.hub.attach("ann"):
        pass
    for one in opened[1:]:
        one.__exit__(None, None, None)
    assert shop.hub.users() == []


def test_a_cursor_is_two_numbers_and_nothing_else() -> None:
    assert Position.parse("42.17") == Position(42, 17)
    waiting = Position(42, Since(1_764_045_600_123))
    assert Position.parse(waiting.text()) == waiting
    assert waiting.text() == "42.@1764045600123"
    for wrong in (
        "",
        "42",
        "42.",
        ".1",
        "a.b",
        "1.2.3",
        "-1.2",
        "01.2",
        "1 .2",
        "1.2\n",
        "9" * 17 + ".1",
        "\u0661.\u0662",
        "1.@",
        "1.@0",
        "1.@999999999999",
        "1.@99999999999999",
    ):
        with pytest.raises(Problem) as refused:
            Position.parse(wrong)
        assert refused.value.code == "bad-cursor"


async def test_a_client_that_takes_nothing_holds_up_no_farewell() -> None:
    shop = Shop()
    stuck = asyncio.Event()

    async def send(text: str) -> None:
        stuck.set()
        await asyncio.Event().wait()

    with shop.hub.attach("ann") as feed:
        running = asyncio.create_task(feed.run(Position(), send))
        await stuck.wait()
        shop.hub.close()
        shop.hub.close()
        async with asyncio.timeout(1):
            assert await running is End.SHUTDOWN


def test_an_order_that_is_final_is_reported_whether_its_user_has_a_feed_or_not() -> None:
    shop = Shop()
    for status in ("NEW", "FINISHED"):
        shop.hub.dispatch("ann", Frame(Stream.ORDERS, 1, "o-1", 1, {"status": status}))
    assert shop.final == ["o-1"]
