"""The projections' agent acknowledges what is folded, after its records, and folds at a pace."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import pytest

from eshop.agents import projections

SECONDS_MAX = 5


class Ended(Exception):
    """The process would have ended."""


class World:
    """An app with one stream, and users that note what they take. ``record`` is the record of each fold."""

    def __init__(self) -> None:
        self.consumer_generation_id = 1
        self.is_active = True
        self.queue: asyncio.Queue[Any] = asyncio.Queue()
        self.taken: list[list[int]] = []
        self.acked: list[int] = []
        self.records: list[asyncio.Future[None]] = []
        self.fold: Any = None
        self.producer = SimpleNamespace(buffer=SimpleNamespace(max_messages=0))
        self.flow_control = SimpleNamespace(is_active=lambda: self.is_active)
        self.consumer = SimpleNamespace(acknowledge=self._acknowledge)
        self.channel = SimpleNamespace(queue=self.queue)
        projections.register(cast("Any", self), ["topic"], cast("Any", self))

    def topic(self, *names: str) -> tuple[str, ...]:
        return names

    def agent(self, _topic: object, name: str) -> Any:
        assert name == "projections.users"
        return lambda fold: setattr(self, "fold", fold)

    def noack(self) -> "World":
        return self

    async def events(self) -> AsyncIterator[Any]:
        while True:
            yield await self.queue.get()

    def take(self, events: Sequence[Any]) -> list[asyncio.Future[None]]:
        self.taken.append([event.message.offset for event in events])
        if self.taken[-1] == [666]:
            raise RuntimeError("a bug")
        return self.records

    def _acknowledge(self, messages: Sequence[Any]) -> None:
        self.acked += [message.offset for message in messages]

    def read(self, *offsets: int) -> None:
        for offset in offsets:
            self.queue.put_nowait(
                SimpleNamespace(
                    message=SimpleNamespace(offset=offset, generation_id=self.consumer_generation_id)
                )
            )


@pytest.fixture
async def world() -> World:
    return World()


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_events_are_acknowledged_after_their_records(world: World) -> None:
    record = asyncio.get_running_loop().create_future()
    world.records = [record]
    world.read(1, 2, 3)
    agent = asyncio.create_task(world.fold(world))
    await turns()
    assert (world.taken, world.acked) == ([[1, 2, 3]], [])
    record.set_result(None)
    await turns()
    assert world.acked == [1, 2, 3]
    agent.cancel()


async def test_next_fold_waits_for_its_time_unless_there_is_a_backlog(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projections, "PACE_SECONDS", 3600.0)
    monkeypatch.setattr(projections, "EVENTS_MAX", 2)
    world.read(1, 2, 3, 4, 5)
    agent = asyncio.create_task(world.fold(world))
    await turns()
    world.read(6)
    await turns()
    assert world.taken == [[1, 2], [3, 4], [5]]
    assert world.acked == [1, 2, 3, 4, 5]
    agent.cancel()


async def test_events_of_partitions_that_change_hands_are_left_alone(
    world: World,
) -> None:
    world.is_active = False
    world.read(1)
    agent = asyncio.create_task(world.fold(world))
    await turns()
    world.is_active = True
    world.read(2)
    world.consumer_generation_id = 2
    world.read(3)
    await turns()
    assert (world.taken, world.acked) == ([[3]], [3])
    agent.cancel()


async def test_events_that_can_not_be_folded_end_the_process_unacknowledged(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(reason: str) -> NoReturn:
        raise Ended(reason)

    monkeypatch.setattr(projections, "end_process", end)
    world.read(666)
    with pytest.raises(Ended, match="a bug"):
        await asyncio.wait_for(world.fold(world), SECONDS_MAX)
    assert world.acked == []
