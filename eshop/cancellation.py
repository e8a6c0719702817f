"""Cancellation of tasks with a bound: a cancelled task may run on.

On Python 3.11 ``asyncio.wait_for`` swallows a cancellation that arrives when its future is done, and
libraries wait in it. So only this module cancels tasks, and every wait in it has a bound.

See docs/adr/0016-what-the-relay-waits-for.md.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

END_SECONDS_MAX = 5.0
#: A swallowed cancellation is repeated after this time.
REPEAT_SECONDS = 0.2

T = TypeVar("T")


async def cancel_and_wait(*tasks: "asyncio.Task[Any]", seconds_max: float = END_SECONDS_MAX) -> None:
    """Cancel the tasks until they have ended, for at most ``seconds_max``; log tasks that still run then.

    Exceptions of the tasks are dropped.
    """
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + seconds_max
    for task in tasks:
        task.add_done_callback(_drop_exception)
    running = {task for task in tasks if not task.done()}
    while running and (left := give_up_at - loop.time()) > 0:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=min(REPEAT_SECONDS, left))
    for task in running:
        logger.error("still running %g s after it was cancelled: %r", seconds_max, task)


async def bounded(work: Coroutine[Any, Any, T], seconds_max: float) -> T:
    """Return the result of ``work``; raise TimeoutError after ``seconds_max``, even if it can't be cancelled.

    In contrast, ``asyncio.timeout`` waits until the cancelled work has ended.
    """
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({task}, timeout=seconds_max)
    finally:
        if not task.done():
            task.add_done_callback(_drop_exception)
            task.cancel()
    if task.cancelling():
        raise TimeoutError(f"no end after {seconds_max:g} s")
    return task.result()


def _drop_exception(task: "asyncio.Task[Any]") -> None:
    if not task.cancelled():
        task.exception()
