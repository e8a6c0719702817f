"""The watchdog: a worker that has work and does none is ended, and no other."""

from typing import NoReturn

import pytest

from eshop.agents.watchdog import STALLED_SECONDS, Watchdog


class Ended(Exception):
    """The process would have ended."""


def end(reason: str) -> NoReturn:
    raise Ended(reason)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_partition_that_stands_still_with_work_ends_the_process(clock: list[float]) -> None:
    watchdog = Watchdog("agent", end)
    watchdog.look(3, 10, 20, 0.0)
    clock[0] += STALLED_SECONDS
    watchdog.look(3, 10, 20, 0.0)
    clock[0] += 1
    with pytest.raises(Ended, match="partition 3 stands at 10 of 20"):
        watchdog.look(3, 10, 20, 0.0)


@pytest.mark.parametrize(
    ("done", "tried"), [((10, 10, 11), False), ((20, 20, 20), False), ((10, 10, 10), True)],
    ids=["goes on", "has no work", "tries in vain"],
)  # fmt: skip
def test_partition_that_does_something_or_has_nothing_to_do_is_let_be(
    clock: list[float], done: tuple[int, ...], tried: bool
) -> None:
    watchdog = Watchdog("agent", end)
    for at in done:
        watchdog.look(3, at, 20, clock[0] if tried else 0.0)
        clock[0] += STALLED_SECONDS - 1
    watchdog.forget()
    watchdog.look(3, 10, 20, 0.0)
