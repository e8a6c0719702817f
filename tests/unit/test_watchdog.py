"""The watchdog: who has work and does none is noticed, and nobody else."""

from collections.abc import Callable

import pytest
from faust.types import TP

from eshop.agents import watchdog as watchdogs
from eshop.agents.watchdog import (
    LOOK_SECONDS,
    QUIET_SECONDS,
    SILENT_SECONDS,
    STALLED_SECONDS,
    STARVED_SECONDS,
    PartitionProgress,
    SilenceWatch,
    Watchdog,
)
from eshop.web.health import NotReady

END = 20


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def watch(clock: list[float], seconds: float, *partitions: Callable[[float], tuple[int, float]]) -> set[int]:
    """Look at partitions for a while, and return those that stand still in the end.

    Each partition tells, after a number of seconds, how far it is and when it tried.
    """
    watchdog, begin, still = Watchdog(), clock[0], set()
    while clock[0] - begin <= seconds:
        told = [partition(clock[0] - begin) for partition in partitions]
        found = [PartitionProgress(TP("topic", n), done, END, tried) for n, (done, tried) in enumerate(told)]
        still = {at.partition.partition for at in watchdog.look(found)}
        clock[0] += LOOK_SECONDS
    return still


def stuck(_after: float) -> tuple[int, float]:
    return 10, 0.0


def without_work(_after: float) -> tuple[int, float]:
    return END, 0.0


def going_on(after: float) -> tuple[int, float]:
    return int(after / LOOK_SECONDS) % END, 0.0


def trying_in_vain(after: float) -> tuple[int, float]:
    return 10, 1000.0 + after


def test_partition_that_stands_still_with_work_is_noticed(clock: list[float]) -> None:
    assert watch(clock, STALLED_SECONDS, stuck, without_work) == set()
    assert watch(clock, STALLED_SECONDS + 2 * LOOK_SECONDS, stuck, without_work) == {0}


@pytest.mark.parametrize("partition", [going_on, without_work, trying_in_vain])
def test_partition_that_does_something_or_has_nothing_to_do_is_let_be(
    clock: list[float], partition: Callable[[float], tuple[int, float]]
) -> None:
    assert watch(clock, 3 * STARVED_SECONDS, partition) == set()


def test_partition_may_wait_for_others_with_a_backlog_but_not_for_ever(clock: list[float]) -> None:
    assert watch(clock, STARVED_SECONDS - LOOK_SECONDS, stuck, going_on) == set()
    assert watch(clock, STARVED_SECONDS + 2 * LOOK_SECONDS, stuck, going_on) == {0}


def test_time_in_which_nothing_could_be_seen_does_not_count(clock: list[float]) -> None:
    watchdog = Watchdog()
    for _ in range(3):
        assert watchdog.look([PartitionProgress(TP("topic", 0), 10, END)]) == []
        clock[0] += 2 * STALLED_SECONDS


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect the reasons for which the process would have ended."""
    reasons: list[str] = []
    monkeypatch.setattr(watchdogs, "end_process", reasons.append)
    return reasons


async def test_part_that_falls_silent_is_not_ready_and_then_ends_the_process(
    clock: list[float], ended: list[str]
) -> None:
    alive_at = clock[0]
    watch = SilenceWatch(lambda: alive_at, "the relay")
    while clock[0] - alive_at <= QUIET_SECONDS:
        await watch.check()
        clock[0] += LOOK_SECONDS
        await watch.look()
    with pytest.raises(NotReady, match="the relay shows no sign of life for 20 s"):
        await watch.check()
    while clock[0] - alive_at <= SILENT_SECONDS:
        assert ended == []
        clock[0] += LOOK_SECONDS
        await watch.look()
    assert ended == ["the relay shows no sign of life for 50 s"]


async def test_part_that_fails_again_and_again_is_alive(clock: list[float], ended: list[str]) -> None:
    watch = SilenceWatch(lambda: clock[0], "the relay")
    for _ in range(100):
        clock[0] += LOOK_SECONDS
        await watch.look()
        await watch.check()
    assert ended == []


async def test_process_that_stood_still_is_given_time_to_go_on(clock: list[float], ended: list[str]) -> None:
    alive_at = clock[0]
    watch = SilenceWatch(lambda: alive_at, "the relay")
    clock[0] += 100 * SILENT_SECONDS
    await watch.look()
    assert ended == []
    with pytest.raises(NotReady):
        await watch.check()
    for _ in range(int(SILENT_SECONDS / LOOK_SECONDS) + 1):
        clock[0] += LOOK_SECONDS
        await watch.look()
    assert len(ended) == 1
