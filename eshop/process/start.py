"""Waiting, at a process's start, for the parts it stands on: they may be starting, too."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import psycopg2
from aiokafka.errors import KafkaConnectionError

#: What is not there after that is not on its way: the process ends and says so.
AWAY_SECONDS_MAX = 30.0
PAUSE_SECONDS = 0.5

logger = logging.getLogger(__name__)


async def when_there(work: Callable[[], Awaitable[None]]) -> None:
    """Do the work, which is safe to repeat, as soon as the broker and the database can be reached.

    A start that is given up and made anew costs seconds of work, which what it waits for may need. Raises
    what it met last after ``AWAY_SECONDS_MAX``, and anything else at once.
    """
    begun = time.monotonic()
    while True:
        try:
            return await work()
        except (KafkaConnectionError, psycopg2.OperationalError, OSError) as error:
            if time.monotonic() - begun > AWAY_SECONDS_MAX:
                raise
            logger.warning("waits for what it needs: %s", str(error).strip())
            await asyncio.sleep(PAUSE_SECONDS)
