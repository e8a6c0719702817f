"""Keeps a child running: restarts it, with exponential backoff, whenever it ends by itself."""

import threading
import time
from collections.abc import Callable
from enum import StrEnum

from eshop.backoff import Backoff
from eshop.cluster.errors import ClusterError
from eshop.cluster.process import Process

BACKOFF_SECONDS_FIRST = 0.5
BACKOFF_SECONDS_MAX = 30.0
#: A child that ran this long is healthy: its next restart waits for the first, short time.
WELL_AFTER_SECONDS = 20.0
READY_POLL_SECONDS = 0.1


class State(StrEnum):
    """The state of a child: starting → ready → waiting (for its restart) → starting; at the end, stopped."""

    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"
    STOPPED = "stopped"


class Supervised:
    """A process with a thread that keeps it running until `stop`.

    ``announce`` is called with the text of every end, start and recovery, from that thread.
    """

    def __init__(
        self, process: Process, kind: str, ports: dict[str, int], announce: Callable[[str, str], None]
    ) -> None:
        self.process = process
        self.kind = kind
        self.ports = ports
        self.restarts = 0
        self.state = State.STOPPED
        self._announce = announce
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"keep-{self.name}", daemon=True)

    @property
    def name(self) -> str:
        """The child's name."""
        return self.process.program.name

    def start(self) -> None:
        """Start the child, and keep it running from now on."""
        self.state = State.STARTING
        self.process.start()
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Send the stop signal; from now on its end is wanted."""
        self._stopping.set()
        self.process.ask_to_stop()

    def stop(self) -> None:
        """End the child and its thread."""
        self._stopping.set()
        self.process.stop()
        if self._thread.is_alive():
            self._thread.join()
            self.process.stop()  # it may have been between two starts
        self.state = State.STOPPED

    def _keep(self) -> None:
        backoff = Backoff(BACKOFF_SECONDS_FIRST, BACKOFF_SECONDS_MAX)
        while True:
            code = self._run()
            if self._stopping.is_set():
                return
            if time.time() - self.process.started_at >= WELL_AFTER_SECONDS:
                backoff.succeeded()
            self.restarts += 1
            self.state = State.WAITING
            delay = backoff.failed()
            self._announce(self.name, f"{self._how_it_ended(code)}; starts again in {delay:.1f} s")
            if self._stopping.wait(delay):
                return
            self._start_again()

    def _start_again(self) -> None:
        self.state = State.STARTING
        try:
            self.process.start()
        except (OSError, ClusterError) as error:
            self._announce(self.name, f"could not be started: {error}")

    def _run(self) -> int | None:
        """Watch the running instance to its end; return its exit code."""
        while self.state is State.STARTING:
            code = self.process.wait(READY_POLL_SECONDS)
            if code is not None or self._stopping.is_set():
                return code
            if self.process.program.is_ready():
                self.state = State.READY
                again = " again" if self.restarts else ""
                self._announce(self.name, f"is ready{again} after {self._age_seconds():.1f} s")
        return self.process.wait()

    def _how_it_ended(self, code: int | None) -> str:
        """Announce the child's end, with the reason in its log: a killed child has logged none."""
        cause = self.process.cause_of_end() if code is not None and code > 0 else None
        return describe_exit(code) + (f" ({cause})" if cause else "")

    def _age_seconds(self) -> float:
        return time.time() - self.process.started_at


def describe_exit(code: int | None) -> str:
    """Say in words how a child ended."""
    if code is None:
        return "ended"
    return f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
