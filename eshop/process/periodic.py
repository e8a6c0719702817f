"""Work that is repeated beside the agents."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import faust

logger = logging.getLogger(__name__)


def register_periodic(
    app: faust.App, every_seconds: float, work: Callable[[], Awaitable[object]], name: str
) -> None:
    """Do the work every so often while the worker runs. A failure is logged, and the next turn comes."""

    async def repeat() -> None:
        while not app.should_stop:
            try:
                await work()
            except Exception:
                logger.exception("%s failed; it is done again in %g s", name, every_seconds)
            await asyncio.sleep(every_seconds)

    app.task(repeat)
