"""The watchdog: a worker that has work and does none is ended, and no other."""

from typing import NoReturn

import pytest
from faust.types import TP

from eshop.agents.watchdog import STALLED_SECONDS, Standing, Watchdog


class Ended(Exception):
    """The process would have ended."""


def standing(done: int, tried_at: float = 0.0) -> Standing:
    """Return how a partition whose log ends at 20 stands."""
    return Standing(TP("topic", 3), done, 20, tried_at)


def end(reason: str) -> NoReturn:
    raise Ended(reason)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_partition_that_stands_still_with_work_ends_the_process(clock: list[float]) -> None:
    watchdog = Watchdog("agent", end)
    watchdog.look(standing(10))
    clock[0] += STALLED_SECONDS
    watchdog.look(standing(10))
    clock[0] += 1
    with pytest.raises(Ended, match="topic/3 stands at 10 of 20"):
        watchdog.look(standing(10))


@pytest.mark.parametrize(
    ("done", "tried"), [((10, 10, 11), False), ((20, 20, 20), False), ((10, 10, 10), True)],
    ids=["goes on", "has no work", "tries in vain"],
)  # fmt: skip
def test_partition_that_does_something_or_has_nothing_to_do_is_let_be(
    clock: list[float], done: tuple[int, ...], tried: bool
) -> None:
    watchdog = Watchdog("agent", end)
    for at in done:
        watchdog.look(standing(at, clock[0] if tried else 0.0))
        clock[0] += STALLED_SECONDS - 1
    watchdog.forget()
    watchdog.look(standing(10))
