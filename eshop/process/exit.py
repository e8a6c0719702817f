"""Ending a process that can't go on: what a supervisor restarts is better than what goes on wrongly."""

import logging
import os
from typing import NoReturn

#: sysexits.h: an internal software error.
EXIT_CODE = 70

logger = logging.getLogger(__name__)


def end_process(reason: str) -> NoReturn:
    """Log why, and end at once: nothing more is acknowledged, committed or sent.

    An exception out of an agent's loop would acknowledge the message it failed on, and Faust would go on.
    """
    logger.critical("ending the process: %s", reason, exc_info=True)  # noqa: LOG014  often there is one
    logging.shutdown()
    os._exit(EXIT_CODE)
