"""The watchdog: who has work and does none is noticed, and nobody else."""

from collections.abc import Callable

import pytest
from faust.types import TP

from eshop.agents.watchdog import LOOK_SECONDS, STALLED_SECONDS, STARVED_SECONDS, Standing, Watchdog

END = 20


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def watch(clock: list[float], seconds: float, *partitions: Callable[[float], tuple[int, float]]) -> set[int]:
    """Look at partitions for a while, and return those that stand still in the end.

    Each partition tells, after so many seconds, how far it is and when it tried.
    """
    watchdog, begin, still = Watchdog(), clock[0], set()
    while clock[0] - begin <= seconds:
        told = [partition(clock[0] - begin) for partition in partitions]
        found = [Standing(TP("topic", n), done, END, tried) for n, (done, tried) in enumerate(told)]
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
        assert watchdog.look([Standing(TP("topic", 0), 10, END)]) == []
        clock[0] += 2 * STALLED_SECONDS
