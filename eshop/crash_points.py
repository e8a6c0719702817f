"""Crash points: named places at which a test makes a process die, to show that nothing is lost.

Off, at no cost, unless ``ESHOP_CRASH_POINTS`` names a folder. A process at a crash point looks for the file
``<kind>.<point>`` there; the process that removes the file kills itself.
"""

import logging
import os
import signal
from pathlib import Path

#: Every boundary between two steps that can't be atomic.
POINTS = (
    "mid-batch",
    "before-commit",
    "after-commit-before-ack",
    "after-publish-before-mark",
    "after-mark",
    "after-request-commit",
)

logger = logging.getLogger(__name__)
_armed: tuple[Path, str] | None = None


def arm_crash_points(folder: Path, kind: str) -> None:
    """Arm the crash points of this process: it looks into the folder at every point from now on."""
    global _armed  # noqa: PLW0603  one switch a process, like the process's death
    _armed = (folder, kind)


def crash_point(point: str) -> None:
    """Die here if a test wants it: by SIGKILL, without any cleanup."""
    if _armed is None or not point:
        return
    folder, kind = _armed
    try:
        (folder / f"{kind}.{point}").unlink()
    except FileNotFoundError:
        return
    logger.critical("crash point %s.%s", kind, point)
    logging.shutdown()
    os.kill(os.getpid(), signal.SIGKILL)
