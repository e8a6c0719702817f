"""The end of a process that can't go on: a restart by the supervisor is better than wrong results."""

import logging
import os
from typing import NoReturn

#: sysexits.h: an internal software error.
EXIT_CODE = 70

logger = logging.getLogger(__name__)


def end_process(reason: str) -> NoReturn:
    """Log the reason, and end at once: nothing more is acknowledged, committed or sent.

    An exception that leaves an agent's loop would acknowledge the failed message, and Faust would go on.
    """
    logger.critical("ending the process: %s", reason, exc_info=True)  # noqa: LOG014  often there is one
    logging.shutdown()
    os._exit(EXIT_CODE)
