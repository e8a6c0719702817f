"""A fetch is queued whole, a full queue and a stopped flow hold it, and a batch is acknowledged at once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from faust.types import TP

from eshop.agents.batches import ack_in_order, batches
from eshop.process.app import ServiceApp
from eshop.settings import Settings

SECONDS_MAX = 10
PARTITIONS = [TP("topic", number) for number in range(3)]

Fetch = dict[TP, list[Any]]


def fetch_of(count: int, first: int = 1) -> Fetch:
    """Return that many records of each partition."""
    return {tp: [record_at(tp, first + number) for number in range(count)] for tp in PARTITIONS}


def record_at(tp: TP, offset: int) -> Any:
    sizes = {"checksum": None, "serialized_key_size": 1, "serialized_value_size": 1}
    content = {"timestamp": 1, "timestamp_type": 0, "headers": (), "key": b"k", "value": b"v"}
    return SimpleNamespace(topic=tp.topic, partition=tp.partition, offset=offset, **content, **sizes)


class Bench:
    """A consumer without a broker, whose fetches are given, and the batches of one agent."""

    def __init__(self) -> None:
        self.app = ServiceApp("orders", Settings())
        self.consumer = cast("Any", self.app.consumer)
        self.consumer._wait_next_records = self._next_fetch
        self.consumer.highwater = lambda _tp: 0
        self.fetches: asyncio.Queue[Fetch] = asyncio.Queue()
        #: Set while the loop waits for a fetch, so that all before it are dealt with.
        self.is_waiting = asyncio.Event()
        raw: dict[str, Any] = {
            "key_type": bytes,
            "value_type": bytes,
            "key_serializer": "raw",
            "value_serializer": "raw",
        }
        self.stream: Any = self.app.topic("topic", **raw).stream()
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Assign the partitions, let the flow run, and read."""
        await self.app.topics._update_indices()  # type: ignore[attr-defined]
        await self.app.topics.on_partitions_assigned(set(PARTITIONS))
        self.app.flow_control.resume()
        self.task = asyncio.create_task(self.consumer._drain_messages(SimpleNamespace(should_stop=False)))

    async def read(self, fetch: Fetch) -> None:
        """Read a fetch to its end."""
        self.is_waiting.clear()
        self.fetches.put_nowait(fetch)
        await asyncio.wait_for(self.is_waiting.wait(), SECONDS_MAX)

    @property
    def queued(self) -> int:
        return int(self.stream.channel.queue.qsize())

    async def batch(self) -> list[Any]:
        return await asyncio.wait_for(anext(batches(self.app, self.stream)), SECONDS_MAX)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(SECONDS_MAX):
            while not holds():
                await asyncio.sleep(0)

    async def _next_fetch(self, _seconds: float) -> tuple[Fetch, set[TP]]:
        if self.fetches.empty():
            self.is_waiting.set()
        return await self.fetches.get(), set(PARTITIONS)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    opened = Bench()
    await opened.start()
    yield opened
    assert opened.task is not None
    opened.task.cancel()
    await asyncio.gather(opened.task, return_exceptions=True)
    opened.consumer._thread.thread_loop.close()


def offsets(events: list[Any]) -> list[tuple[int, int]]:
    return [(event.message.partition, event.message.offset) for event in events]


async def test_fetch_is_one_batch_in_order_by_partition(bench: Bench) -> None:
    waiting = asyncio.create_task(bench.batch())
    await asyncio.sleep(0)
    bench.fetches.put_nowait(fetch_of(100))
    batch = await waiting
    assert len(batch) == 300
    for tp in PARTITIONS:
        assert [at for partition, at in offsets(batch) if partition == tp.partition] == list(range(1, 101))


async def test_full_queue_holds_the_fetch_and_nothing_is_lost(bench: Bench) -> None:
    count = bench.stream.channel.queue.maxsize
    bench.fetches.put_nowait(fetch_of(count))
    await bench.until(lambda: bench.queued >= count)
    await asyncio.sleep(0)
    assert bench.queued == count
    seen: list[tuple[int, int]] = []
    while len(seen) < 3 * count:
        seen += offsets(await bench.batch())
    assert sorted(seen) == [(tp.partition, at) for tp in PARTITIONS for at in range(1, count + 1)]
    assert all(
        [at for partition, at in seen if partition == tp.partition] == list(range(1, count + 1))
        for tp in PARTITIONS
    )


async def test_stopped_flow_ends_the_wait_for_a_full_queue_and_drops_the_rest(bench: Bench) -> None:
    count = bench.stream.channel.queue.maxsize
    bench.fetches.put_nowait(fetch_of(count))
    await bench.until(lambda: bench.queued >= count)
    bench.consumer.stop_flow()
    bench.app.flow_control.suspend()
    await asyncio.wait_for(bench.is_waiting.wait(), SECONDS_MAX)
    bench.app.flow_control.clear()
    bench.app.flow_control.resume()
    bench.consumer.resume_flow()
    for tp in PARTITIONS:
        bench.consumer._read_offset[tp] = None
    await bench.read(fetch_of(2))
    assert sorted(offsets(await bench.batch())) == [(tp.partition, at) for tp in PARTITIONS for at in (1, 2)]


async def test_message_before_the_position_is_dropped_and_a_gap_is_noted(bench: Bench) -> None:
    first, *others = PARTITIONS
    bench.consumer._read_offset[first] = 10
    bench.consumer._committed_offset[first] = 10
    await bench.read({first: [record_at(first, at) for at in (8, 9, 10, 15)]})
    assert offsets(await bench.batch()) == [(first.partition, 10), (first.partition, 15)]
    assert bench.consumer._gap[first].overlaps(12)
    assert not any(bench.consumer._gap[tp] for tp in others)


async def test_fetch_of_an_earlier_assignment_is_dropped(bench: Bench) -> None:
    stopped = asyncio.create_task(bench.consumer._queue_all(fetch_of(3), None, -1))
    await asyncio.wait_for(stopped, SECONDS_MAX)
    assert bench.queued == 0


async def test_batch_is_acknowledged_at_once_and_only_once(bench: Bench) -> None:
    first = PARTITIONS[0]
    bench.consumer._committed_offset[first] = 3
    await bench.read({first: [record_at(first, at) for at in range(1, 7)]})
    batch = await bench.batch()
    for _ in range(2):
        ack_in_order(bench.app, batch)
    assert bench.consumer._acked[first] == [3, 4, 5, 6]
    assert bench.consumer._acked_index[first] == {3, 4, 5, 6}
    assert all(event.message.acked for event in batch)
    assert not bench.consumer._unacked_messages


async def test_failure_while_reading_ends_the_reader(bench: Bench) -> None:
    def fail(_tp: TP) -> int:
        raise RuntimeError("no highwater")

    bench.consumer.highwater = fail
    bench.fetches.put_nowait(fetch_of(1))
    assert bench.task is not None
    with pytest.raises(RuntimeError, match="no highwater"):
        await asyncio.wait_for(bench.task, SECONDS_MAX)
