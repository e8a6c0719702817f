"""Ends every child after any end of the launcher: `python -m eshop.cluster.guardian`.

The guardian leads the process group of all children, which they join before they run, so it needs no
messages. It reads a pipe that only the launcher holds open: the pipe's end means the launcher's end. This
works on every system with process groups, unlike Linux's parent-death signal. It also keeps the data folder's
lock open until its work is done, so a new launcher waits for it.
"""

import os
import signal
import sys
import time
from collections.abc import Callable

import psutil

POLL_SECONDS = 0.05
#: One after the other, until the group is empty. To Postgres SIGTERM means "after all clients have left" and
#: SIGINT "now, in an orderly way".
STAGES = ((signal.SIGTERM, 3.0), (signal.SIGINT, 4.0))


def main() -> None:
    """Wait for the launcher's end, then end the group: tidily for some seconds, then for good."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while sys.stdin.buffer.read(1):
        pass
    for number, seconds in STAGES:
        if not others():
            return
        os.killpg(0, number)
        wait_until(lambda: not others(), seconds)
    if others():
        os.killpg(0, signal.SIGKILL)  # itself included


def others() -> list[int]:
    """Return the ids of the other living processes of the own group."""
    return [pid for pid in psutil.pids() if pid != os.getpid() and _lives_in(pid, os.getpgrp())]


def _lives_in(pid: int, group: int) -> bool:
    try:
        return os.getpgid(pid) == group and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except (OSError, psutil.Error):
        return False


def wait_until(condition: Callable[[], bool], seconds_max: float) -> bool:
    """Poll until the condition holds or time is up; return which."""
    end = time.monotonic() + seconds_max
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(POLL_SECONDS)
    return True


if __name__ == "__main__":
    main()
