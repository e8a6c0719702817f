"""Child processes: start, readiness, end; and the guardian that ends them after the launcher."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psutil

from eshop.cluster.errors import ClusterError
from eshop.cluster.logs import cause_of_end
from eshop.environment import child_environment

READY_POLL_SECONDS = 0.05
KILL_SECONDS_MAX = 10.0
LOG_TAIL_LINES = 12
LOG_TAIL_BYTES_MAX = 65_536
CAUSE_CHARACTERS_MAX = 300


@dataclass(frozen=True, slots=True)
class OsUser:
    """An unprivileged user of the operating system to run a child as."""

    uid: int
    gid: int


def _nothing() -> None:
    """Do nothing: most programs need no care before a start."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program: its command, its readiness probe, and its way to stop."""

    name: str
    argv: tuple[str, ...]
    folder: Path
    is_ready: Callable[[], bool]
    env: Mapping[str, str] = field(default_factory=lambda: child_environment("C"))
    before_start: Callable[[], None] = _nothing
    user: OsUser | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds_max: float = 10.0


class Guardian:
    """The process group of all children, led by a process that ends them when this process is gone."""

    def __init__(self, keep_open: tuple[int, ...] = ()) -> None:
        """Start it. ``keep_open`` are file descriptors (locks) it holds until its work is done."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "eshop.cluster.guardian"],
            env=child_environment("C.UTF-8"),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
            pass_fds=keep_open,
        )

    @property
    def group(self) -> int:
        """The id of the children's process group."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Tell whether somebody still watches."""
        return self._process.poll() is None

    def close(self) -> None:
        """Close the pipe: the guardian ends the rest of its group, then itself."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(KILL_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Process:
    """At most one running instance of a program, whose output is appended to a log file."""

    def __init__(self, program: Program, log: Path, guardian: Guardian) -> None:
        self.program = program
        self.log = log
        self._guardian = guardian
        self._popen: subprocess.Popen[bytes] | None = None
        self._log_begins_at = 0
        self.started_at = 0.0

    @property
    def pid(self) -> int | None:
        """The process id of the running instance."""
        return self._popen.pid if self._popen is not None and self._popen.poll() is None else None

    def start(self) -> Self:
        """Start an instance; it joins the guardian's group before it runs."""
        assert self.pid is None, f"{self.program.name} is running"
        program = self.program
        program.before_start()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._log_begins_at = output.tell()
            self._popen = subprocess.Popen(
                program.argv,
                cwd=program.folder,
                env=dict(program.env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=self._guardian.group,
                user=program.user.uid if program.user else None,
                group=program.user.gid if program.user else None,
                extra_groups=[] if program.user else None,
            )
        self.started_at = time.time()
        return self

    def wait(self, seconds_max: float | None = None) -> int | None:
        """Wait for the instance's end; return its exit code, or None after the time."""
        assert self._popen is not None
        try:
            return self._popen.wait(seconds_max)
        except subprocess.TimeoutExpired:
            return None

    def wait_ready(self, seconds_max: float, cancelled: Callable[[], bool] = lambda: False) -> None:
        """Return when the instance is ready; raise ClusterError, with its last lines, if it fails."""
        end = time.monotonic() + seconds_max
        while not self.program.is_ready():
            code = self.wait(READY_POLL_SECONDS)
            if code is not None:
                raise ClusterError(
                    f"{self.program.name} ended with {code} before it was ready:\n{self.last_words()}"
                )
            if cancelled():
                raise ClusterError(f"stopped while {self.program.name} was starting")
            if time.monotonic() > end:
                raise ClusterError(
                    f"{self.program.name} is not ready after {seconds_max:.0f} s:\n{self.last_words()}"
                )

    def ask_to_stop(self) -> None:
        """Send the program's stop signal, if there is an instance."""
        self._signal(self.program.stop_signal)

    def stop(self) -> None:
        """End the instance tidily within the program's time, else for good."""
        self.ask_to_stop()
        if self.pid is not None and self.wait(self.program.stop_seconds_max) is None:
            self.kill()

    def kill(self) -> None:
        """End the instance and its own children at once (SIGKILL) and wait for their end."""
        pid = self.pid
        if pid is None:
            return
        family = [psutil.Process(pid)]
        with contextlib.suppress(psutil.Error):
            family += family[0].children(recursive=True)
        for member in family:
            with contextlib.suppress(psutil.Error):
                member.kill()
        self.wait(KILL_SECONDS_MAX)
        psutil.wait_procs(family[1:], timeout=KILL_SECONDS_MAX)

    def last_words(self) -> str:
        """Return the last lines of the instance's log."""
        return "\n".join(cause_of_end(self._lines()) or self._lines()[-LOG_TAIL_LINES:])

    def cause_of_end(self) -> str | None:
        """Return the reason for the instance's end in one line, if its log has it."""
        lines = cause_of_end(self._lines())
        return lines[-1].strip()[:CAUSE_CHARACTERS_MAX] if lines else None

    def _lines(self) -> list[str]:
        """Return the last lines of this instance's log."""
        with self.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            begin = self._log_begins_at if self._log_begins_at <= size else 0  # it was cut meanwhile
            file.seek(max(begin, size - LOG_TAIL_BYTES_MAX))
            return file.read().decode(errors="replace").splitlines()

    def _signal(self, number: signal.Signals) -> None:
        if self._popen is not None and self._popen.poll() is None:
            self._popen.send_signal(number)
