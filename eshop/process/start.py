"""The start of a process waits for its dependencies, which may be starting, too."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import psycopg2
from aiokafka.errors import KafkaConnectionError

#: A dependency that is missing after this time is not about to start: the process ends and says so.
AWAY_SECONDS_MAX = 30.0
PAUSE_SECONDS = 0.5

logger = logging.getLogger(__name__)


async def when_there(work: Callable[[], Awaitable[None]]) -> None:
    """Do the work, which is safe to repeat, when the broker and the database can be reached.

    A start that is given up and repeated costs seconds of CPU, which the dependencies may need. Raises the
    last fault after ``AWAY_SECONDS_MAX``, and any other error at once.
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
