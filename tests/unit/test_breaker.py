"""A circuit: what opens it, who is refused, who probes, and what closes it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest

from gateway.breaker import JITTER, Breaker, CircuitOpen

OPEN_SECONDS = 2.0


class Down(Exception):
    """The kind that counts."""


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Circuit:
    """A breaker with three failures allowed, its clock, and what it told."""

    def __init__(self, apart_seconds: float = 0.0) -> None:
        self.clock = Clock()
        self.told: list[bool] = []
        self.breaker = Breaker(
            3, OPEN_SECONDS, self.told.append, apart_seconds=apart_seconds, clock=self.clock
        )

    def call(self, error: Exception | None = None) -> None:
        with self.breaker.call(is_down):
            if error is not None:
                raise error

    def fail(self, times: int = 3, pause: float = 0.0) -> None:
        for _ in range(times):
            self.clock.now += pause
            with suppress(Down):
                self.call(Down())

    def is_open(self) -> bool:
        try:
            self.call()
        except CircuitOpen:
            return True
        return False

    def wait(self) -> None:
        self.clock.now += OPEN_SECONDS * (1 + JITTER)


def is_down(error: Exception) -> bool:
    return isinstance(error, Down)


def test_failures_in_a_row_open_it_and_then_nothing_is_called() -> None:
    circuit = Circuit()
    circuit.fail(3)
    with pytest.raises(CircuitOpen) as refused:
        circuit.call(AssertionError("called"))
    assert OPEN_SECONDS * (1 - JITTER) <= refused.value.retry_after_seconds <= OPEN_SECONDS * (1 + JITTER)
    assert circuit.told == [True]


@pytest.mark.parametrize("answer", [None, KeyError("an answer that is an error")])
def test_an_answer_of_any_kind_between_them_keeps_it_closed(answer: Exception | None) -> None:
    circuit = Circuit()
    for _ in range(5):
        circuit.fail(2)
        with suppress(KeyError):
            circuit.call(answer)
    assert circuit.told == []


def test_failures_of_one_moment_are_one_failure() -> None:
    circuit = Circuit(apart_seconds=0.1)
    circuit.fail(50)
    assert not circuit.is_open()
    circuit.fail(3, pause=0.2)
    assert circuit.is_open()


async def test_one_call_probes_while_the_others_are_refused() -> None:
    circuit, gate = Circuit(), asyncio.Event()
    circuit.fail()
    circuit.wait()

    async def probe() -> None:
        with circuit.breaker.call(is_down):
            await gate.wait()

    probing = asyncio.create_task(probe())
    await asyncio.sleep(0)
    assert circuit.is_open()
    gate.set()
    await probing
    assert not circuit.is_open()
    assert circuit.told == [True, False]


def test_a_probe_that_fails_opens_it_again() -> None:
    circuit = Circuit()
    circuit.fail()
    circuit.wait()
    circuit.fail(1)
    assert circuit.is_open()
    assert circuit.told == [True]
    circuit.wait()
    assert not circuit.is_open()


async def test_a_probe_whose_caller_is_gone_leaves_the_next_one_to_probe() -> None:
    circuit = Circuit()
    circuit.fail()
    circuit.wait()

    async def probe() -> None:
        with circuit.breaker.call(is_down):
            await asyncio.Event().wait()

    probing = asyncio.create_task(probe())
    await asyncio.sleep(0)
    probing.cancel()
    await asyncio.gather(probing, return_exceptions=True)
    assert not circuit.is_open()


def late(circuit: Circuit, error: Exception | None) -> Callable[[], None]:
    """Begin a call now; return how to end it."""
    entered = circuit.breaker.call(is_down)
    entered.__enter__()

    def end() -> None:
        if error is None:
            entered.__exit__(None, None, None)
        else:
            with suppress(Down):
                assert not entered.__exit__(type(error), error, None)

    return end


def test_what_began_before_it_opened_may_close_it_and_never_keeps_it_open() -> None:
    circuit = Circuit()
    failing, answered = late(circuit, Down()), late(circuit, None)
    circuit.fail()
    circuit.wait()
    failing()
    assert not circuit.is_open(), "a late failure is no probe's"
    circuit.fail()
    answered()
    assert not circuit.is_open()
