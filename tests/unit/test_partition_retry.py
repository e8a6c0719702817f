"""A retry: halving finds the poison, order is kept, faults are retried, and what is read again is dropped."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eshop.agents import partition_retry
from eshop.agents.partition_retry import PartitionRetry
from eshop.contracts.envelope import UndecodableMessage
from eshop.store.faults import BrokenAssertion, TransientFault, WatermarkGap

SECONDS_MAX = 5


@pytest.fixture(autouse=True)
def _no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition_retry, "BACKOFF_SECONDS", 0.0)


def events(numbers: Iterable[int], generation: int = 1) -> list[Any]:
    """Return events with these offsets."""
    return [SimpleNamespace(message=SimpleNamespace(offset=n, generation_id=generation)) for n in numbers]


@dataclass
class Attempts:
    """Handles what ``refuses`` lets it, and notes it in order. It stands for the positions, too."""

    refuses: Callable[[list[int]], Exception | None]
    epoch: int = 0
    handled: list[int] = field(default_factory=list)
    parked: list[int] = field(default_factory=list)
    tries: int = 0
    holes: set[tuple[str, int, int, int]] = field(default_factory=set)
    turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(3))

    async def handle(self, events: Sequence[Any]) -> None:
        """Handle all or raise."""
        await asyncio.sleep(0)
        self.tries += 1
        offsets = [event.message.offset for event in events]
        if (error := self.refuses(offsets)) is not None:
            raise error
        self.handled += offsets

    async def park(self, event: Any, error: Exception) -> None:
        """Park one."""
        assert isinstance(error, UndecodableMessage | BrokenAssertion)
        self.parked.append(event.message.offset)

    async def is_hole(self, gap: WatermarkGap) -> bool:
        """Say what the log says."""
        return gap.hole in self.holes

    async def seek_back(self, epoch: int) -> bool:
        """Begin a new epoch."""
        assert epoch == self.epoch
        self.epoch += 1
        return True


APP: Any = SimpleNamespace(should_stop=False, consumer_generation_id=1)


def retry_of(attempts: Attempts, events: Iterable[Any]) -> PartitionRetry:
    """Begin a retry."""
    positions: Any = attempts
    return PartitionRetry(APP, attempts, positions, "test", events)


async def run(attempts: Attempts, numbers: Iterable[int]) -> Attempts:
    """Run a retry to its end."""
    await asyncio.wait_for(retry_of(attempts, events(numbers)).task, SECONDS_MAX)
    return attempts


@given(poisoned=st.sets(st.integers(0, 59)), count=st.integers(1, 60))
def test_only_the_poison_is_parked_and_the_rest_is_handled_in_order(poisoned: set[int], count: int) -> None:
    def refuses(offsets: list[int]) -> Exception | None:
        return UndecodableMessage("bad") if poisoned & set(offsets) else None

    done = asyncio.run(run(Attempts(refuses), range(count)))
    assert done.parked == sorted(number for number in poisoned if number < count)
    assert done.handled == [number for number in range(count) if number not in poisoned]


async def test_transient_fault_and_a_bug_are_retried_until_they_are_gone_and_nothing_is_parked() -> None:
    faults: list[Exception] = [TransientFault("away"), KeyError("bug"), AssertionError("a library's")]
    done = await run(Attempts(lambda _: faults.pop() if faults else None), range(10))
    assert (done.handled, done.parked, done.tries) == (list(range(10)), [], 4)


async def test_one_poison_among_hundreds_costs_few_transactions() -> None:
    done = await run(Attempts(lambda offsets: BrokenAssertion() if 77 in offsets else None), range(400))
    assert done.parked == [77]
    assert done.tries < 30


async def test_gap_drops_what_was_read_since_it_comes_again() -> None:
    gaps = [WatermarkGap("topic", 0, 3, 5)]
    done = await run(Attempts(lambda _: gaps.pop() if gaps else None), range(5, 10))
    assert (done.handled, done.tries, done.epoch) == ([], 1, 1)


async def test_hole_of_the_log_is_accepted_where_it_stands() -> None:
    gaps = [WatermarkGap("topic", 0, 3, 5)]
    attempts = Attempts(lambda _: gaps.pop() if gaps else None, holes={("topic", 0, 3, 5)})
    done = await run(attempts, range(5, 10))
    assert (done.handled, done.tries, done.epoch) == ([5, 6, 7, 8, 9], 2, 0)


async def test_retry_that_waits_for_long_keeps_its_memory_and_has_the_rest_read_again() -> None:
    is_broken = [True]
    attempts = Attempts(lambda _: TransientFault("away") if is_broken[0] else None)
    retry = retry_of(attempts, events([0]))
    for event in events(range(1, 3 * partition_retry.WAITING_MAX)):
        retry.add(event)
    assert len(retry) == partition_retry.WAITING_MAX
    is_broken.clear()
    is_broken.append(False)
    await asyncio.wait_for(retry.task, SECONDS_MAX)
    assert attempts.handled == list(range(partition_retry.WAITING_MAX))
    assert attempts.epoch == 1


async def test_messages_of_a_lost_assignment_are_given_up() -> None:
    attempts = Attempts(lambda _: None)
    old, new = events([1, 2], generation=0), events([3])
    await asyncio.wait_for(retry_of(attempts, [*old, *new]).task, SECONDS_MAX)
    assert attempts.handled == [3]


async def test_messages_that_come_meanwhile_are_handled_after_those_before() -> None:
    faults: list[Exception] = [TransientFault("away")]
    attempts = Attempts(lambda _: faults.pop() if faults else None)
    retry = retry_of(attempts, events([1, 2]))
    for event in events([3, 4]):
        retry.add(event)
    await asyncio.wait_for(retry.task, SECONDS_MAX)
    assert attempts.handled == [1, 2, 3, 4]
