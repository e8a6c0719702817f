"""Tasks are ended, and work is bounded, even if a cancellation is swallowed."""

import asyncio
import logging
import time

import pytest

from eshop.cancellation import bounded, cancel_and_wait


async def swallowing(times: int, entered: asyncio.Event) -> str:
    """Swallow some cancellations, as a library that waits in ``asyncio.wait_for`` of Python 3.11 may."""
    entered.set()
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if times == 0:
                raise
            times -= 1


async def started(times: int) -> "asyncio.Task[str]":
    entered = asyncio.Event()
    task = asyncio.create_task(swallowing(times, entered))
    await entered.wait()
    return task


@pytest.mark.parametrize("times", [0, 1, 3])
async def test_task_that_swallows_cancellations_is_ended(times: int) -> None:
    task = await started(times)
    await cancel_and_wait(task)
    assert task.cancelled()


async def test_task_that_never_ends_is_given_up_and_named(caplog: pytest.LogCaptureFixture) -> None:
    task = await started(1_000)
    with caplog.at_level(logging.ERROR):
        await cancel_and_wait(task, seconds_max=0.3)
    assert not task.done()
    assert "swallowing" in caplog.text
    while not task.done():  # for the loop's sake
        task.cancel()
        await asyncio.sleep(0)


async def test_what_a_cancelled_task_raises_is_dropped_and_ended_tasks_are_no_trouble() -> None:
    async def failing() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("while ending")

    task, done = asyncio.create_task(failing()), asyncio.create_task(asyncio.sleep(0))
    await asyncio.sleep(0)
    await done
    await cancel_and_wait(task, done)
    assert isinstance(task.exception(), ValueError)
    await cancel_and_wait()


async def test_bounded_work_returns_and_raises_what_it_does() -> None:
    async def failing() -> None:
        raise ValueError("on purpose")

    assert await bounded(asyncio.sleep(0, "done"), 10.0) == "done"
    with pytest.raises(ValueError, match="on purpose"):
        await bounded(failing(), 10.0)


async def test_bounded_work_that_can_not_be_cancelled_keeps_nobody_waiting() -> None:
    entered, begun = asyncio.Event(), time.monotonic()
    with pytest.raises(TimeoutError):
        await bounded(swallowing(1, entered), 0.1)
    assert entered.is_set()
    assert time.monotonic() - begun < 30
    await cancel_and_wait(*asyncio.all_tasks() - {asyncio.current_task()})


async def test_who_waits_for_bounded_work_can_be_cancelled() -> None:
    entered = asyncio.Event()
    waiting = asyncio.create_task(bounded(swallowing(0, entered), 60.0))
    await entered.wait()
    await cancel_and_wait(waiting)
    assert waiting.cancelled()
