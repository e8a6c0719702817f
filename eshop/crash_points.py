"""Crash points: named places where a process can be made to die, to show that nothing is lost there.

Off, and costing nothing, unless ``ESHOP_CRASH_POINTS`` names a folder. Then a process that reaches a point
looks for the file ``<kind>.<point>`` there; the one that manages to remove it kills itself.
"""

import logging
import os
import signal
from pathlib import Path

#: Every boundary between two things that can't be done at once.
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
    """Have this process, one of its kind, look into the folder at every point from now on."""
    global _armed  # noqa: PLW0603  one switch a process, like the process's death
    _armed = (folder, kind)


def crash_point(point: str) -> None:
    """Die here if somebody has asked for it: by SIGKILL, so that nothing is tidied up."""
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
