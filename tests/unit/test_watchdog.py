"""The watchdog: a worker that has work and does none is ended, and no other."""

from collections.abc import Callable
from typing import NoReturn

import pytest
from faust.types import TP

from eshop.agents.watchdog import LOOK_SECONDS, STALLED_SECONDS, STARVED_SECONDS, Standing, Watchdog

END = 20


class Ended(Exception):
    """The process would have ended."""


def end(reason: str) -> NoReturn:
    raise Ended(reason)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def watch(clock: list[float], seconds: float, *partitions: Callable[[float], tuple[int, float]]) -> None:
    """Look at partitions for a while; each tells, after so many seconds, how far it is and when it tried."""
    watchdog, begin = Watchdog("agent", end), clock[0]
    while clock[0] - begin <= seconds:
        told = [partition(clock[0] - begin) for partition in partitions]
        watchdog.look([Standing(TP("topic", n), done, END, tried) for n, (done, tried) in enumerate(told)])
        clock[0] += LOOK_SECONDS


def stuck(_after: float) -> tuple[int, float]:
    return 10, 0.0


def without_work(_after: float) -> tuple[int, float]:
    return END, 0.0


def going_on(after: float) -> tuple[int, float]:
    return int(after / LOOK_SECONDS) % END, 0.0


def trying_in_vain(after: float) -> tuple[int, float]:
    return 10, 1000.0 + after


def test_partition_that_stands_still_with_work_ends_the_process(clock: list[float]) -> None:
    watch(clock, STALLED_SECONDS, stuck, without_work)
    with pytest.raises(Ended, match="topic/0 stands at 10 of 20"):
        watch(clock, STALLED_SECONDS + 2 * LOOK_SECONDS, stuck, without_work)


@pytest.mark.parametrize("partition", [going_on, without_work, trying_in_vain])
def test_partition_that_does_something_or_has_nothing_to_do_is_let_be(
    clock: list[float], partition: Callable[[float], tuple[int, float]]
) -> None:
    watch(clock, 3 * STARVED_SECONDS, partition)


def test_partition_may_wait_for_others_with_a_backlog_but_not_for_ever(clock: list[float]) -> None:
    watch(clock, STARVED_SECONDS - LOOK_SECONDS, stuck, going_on)
    with pytest.raises(Ended, match="topic/0"):
        watch(clock, STARVED_SECONDS + 2 * LOOK_SECONDS, stuck, going_on)


def test_time_in_which_nothing_could_be_seen_does_not_count(clock: list[float]) -> None:
    watchdog = Watchdog("agent", end)
    for _ in range(3):
        watchdog.look([Standing(TP("topic", 0), 10, END)])
        clock[0] += 2 * STALLED_SECONDS
