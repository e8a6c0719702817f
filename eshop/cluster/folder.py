"""The data folder of a run: its lock, its logs, and the record of its processes."""

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from eshop.cluster.errors import ClusterError
from eshop.stored import from_stored

TEMPORARY_MARK = "temporary"
LOCK_SECONDS_MAX = 30.0
LOCK_POLL_SECONDS = 0.1
#: Clocks of the system and of the record differ by rounding.
CREATED_TOLERANCE_SECONDS = 0.01
#: A child's start is written down a moment after the system's.
STARTED_TOLERANCE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """A child as `eshop status` shows it. ``started_at`` is in seconds since 1970."""

    name: str
    kind: str
    pid: int | None
    state: str
    ports: dict[str, int]
    started_at: float
    restarts: int


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The processes of a data folder. ``created`` tells the launcher from a later process with its id."""

    pid: int
    created: float
    ready: bool
    processes: tuple[ProcessRecord, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the output of `dump`, also of a newer version."""
        loaded: dict[str, Any] = json.loads(text)
        loaded["processes"] = tuple(from_stored(ProcessRecord, one) for one in loaded["processes"])
        return from_stored(cls, loaded)

    def dump(self) -> str:
        """Return the record as JSON."""
        return json.dumps(asdict(self), indent=2) + "\n"

    def is_alive(self) -> bool:
        """Tell whether the launcher of this record still runs."""
        try:
            return abs(psutil.Process(self.pid).create_time() - self.created) < CREATED_TOLERANCE_SECONDS
        except psutil.Error:
            return False


class DataFolder:
    """The folder of all files of a run; one launcher at a time."""

    def __init__(self, path: Path) -> None:
        """Name the folder; the lock creates it."""
        self.path = path.absolute()
        self._lock: int | None = None

    @property
    def logs(self) -> Path:
        """The folder of the log files."""
        return self.path / "logs"

    def log(self, name: str) -> Path:
        """Return the log file of a child."""
        return self.logs / f"{name}.log"

    def keep_logs(self) -> Path:
        """Move the logs to a place that outlives the folder; return the place."""
        return Path(shutil.move(self.logs, tempfile.mkdtemp(prefix="eshop-logs-")))

    def make(self) -> None:
        """Make the folder and its first files; raise ClusterError on failure."""
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            (self.path / "lock").touch(0o644)
        except OSError as error:
            raise ClusterError(
                f"cannot write to the data folder {self.path}: {error.strerror}; "
                "choose another with --data or ESHOP_DATA"
            ) from error

    @property
    def lock_descriptor(self) -> int:
        """The open lock: a process that inherits it keeps the folder locked."""
        assert self._lock is not None
        return self._lock

    def lock(self) -> None:
        """Make the folder and lock it for this process.

        Raises ClusterError if another launcher runs here. If its launcher is gone and the guardian is still
        ending the children, wait for the guardian.
        """
        self.make()
        descriptor = os.open(self.path / "lock", os.O_RDWR)
        end = time.monotonic() + LOCK_SECONDS_MAX
        while not _try_lock(descriptor):
            record = self.record()
            running = record is not None and record.is_alive()
            if running or time.monotonic() > end:
                os.close(descriptor)
                who = f"process {record.pid}" if record is not None and running else "another process"
                raise ClusterError(
                    f"a cluster already runs in {self.path} ({who}): see `eshop status`, "
                    "end it with `eshop down`, or choose another folder with --data"
                )
            time.sleep(LOCK_POLL_SECONDS)
        self._lock = descriptor
        self._end_leftovers()

    def _end_leftovers(self) -> None:
        """End children that outlived launcher and guardian, if both were killed at once."""
        record = self.record()
        for child in record.processes if record is not None else ():
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(child.pid)
                if child.pid and abs(process.create_time() - child.started_at) < STARTED_TOLERANCE_SECONDS:
                    process.kill()
                    process.wait(LOCK_SECONDS_MAX)
        self.forget()

    def unlock(self) -> None:
        """Let go of the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def is_locked(self) -> bool:
        """Tell whether a launcher, or a guardian at its last work, holds the folder."""
        try:
            descriptor = os.open(self.path / "lock", os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            return not _try_lock(descriptor)
        finally:
            os.close(descriptor)

    def is_data_folder(self) -> bool:
        """Tell whether `lock` made the folder: only such a folder may be deleted."""
        return (self.path / "lock").is_file() and self.logs.is_dir()

    def may_be_removed(self) -> bool:
        """Tell whether the folder comes from `temporary_folder`, is empty, or does not exist."""
        return not self.path.exists() or (self.path / TEMPORARY_MARK).exists() or not any(self.path.iterdir())

    def record(self) -> RunRecord | None:
        """Return the record of the last launcher, dead or alive."""
        try:
            return RunRecord.parse((self.path / "run.json").read_text())
        except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, KeyError):
            return None

    def write(self, record: RunRecord) -> None:
        """Write the record down, whole or not at all."""
        staging = self.path / "run.json.new"
        staging.write_text(record.dump())
        staging.replace(self.path / "run.json")

    def forget(self) -> None:
        """Take the record away: nothing runs any more."""
        (self.path / "run.json").unlink(missing_ok=True)


def temporary_folder() -> DataFolder:
    """Make a folder that may be removed at the end; other OS users may pass through, as Postgres' must."""
    try:
        path = Path(tempfile.mkdtemp(prefix="eshop-"))
    except OSError as error:
        raise ClusterError(f"cannot make a temporary folder: {error}; choose a place with TMPDIR") from error
    path.chmod(0o711)
    (path / TEMPORARY_MARK).touch()
    return DataFolder(path)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
