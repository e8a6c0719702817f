"""Log files of children: follow them, read their end, and bound their size."""

import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

LOG_BYTES_MAX = 20 * 1024 * 1024
#: The bound of a reading; a child that writes faster is shown with gaps, its file is complete.
READ_BYTES_MAX = 64 * 1024
LINE_BYTES_TYPICAL = 200
CAUSE_LINES_MAX = 8
TRACEBACK = "Traceback (most recent call last):"
#: The format of Python's, Kafka's and Postgres' logs.
_SEVERE = re.compile(r"\b(ERROR|CRITICAL|FATAL|PANIC)\b")
#: A log's own line, by its time.
_STAMPED = re.compile(r"\[?(\d{4}-\d\d-\d\d[ T])?\d\d:\d\d:\d\d")


class Tail:
    """Reads new lines of a file, whole lines only; starts again after the file was cut."""

    def __init__(self, path: Path, *, from_end: bool = True) -> None:
        self.path = path
        self._position = _size(path) if from_end else 0
        self._rest = b""

    def new_lines(self) -> list[str]:
        """Return the lines since the last call; a gap has a line of its own."""
        size = _size(self.path)
        if size < self._position:
            self._position, self._rest = 0, b""
        if size == self._position:
            return []
        skipped = max(0, size - self._position - READ_BYTES_MAX)
        with self.path.open("rb") as file:
            file.seek(self._position + skipped)
            piece = file.read(READ_BYTES_MAX)
        self._position += skipped + len(piece)
        *lines, self._rest = ((b"" if skipped else self._rest) + piece).split(b"\n")
        self._rest = self._rest[-READ_BYTES_MAX:]
        gap = [f"… {skipped} bytes not shown, see {self.path.name}"] if skipped else []
        return gap + [line.decode(errors="replace") for line in lines]


def last_lines(path: Path, count: int) -> Iterator[str]:
    """Yield the last lines of a file, reading no more of it than needed."""
    budget = LINE_BYTES_TYPICAL * max(count, 1)
    size = _size(path)
    while True:
        with path.open("rb") as file:
            file.seek(max(0, size - budget))
            lines = file.read(budget).decode(errors="replace").splitlines()
        if len(lines) > count or budget >= size:
            yield from lines[-count:] if count else ()
            return
        budget *= 4


def cause_of_end(lines: Sequence[str]) -> list[str]:
    """Return the reason for a program's end: its last error, with the exception if there is one.

    Empty without both. Messages of the program's stop come after the error, and hide it.
    """
    for at in range(len(lines) - 1, -1, -1):
        if lines[at] == TRACEBACK:
            above = [lines[at - 1]] if at and _SEVERE.search(lines[at - 1]) else []
            return (above + _exception(lines[at + 1 :]))[:CAUSE_LINES_MAX]
        if _STAMPED.match(lines[at]) and _SEVERE.search(lines[at]):
            return [lines[at]]
    return []


def _exception(lines: Sequence[str]) -> list[str]:
    """Return the exception's own lines, which follow the lines of its frames."""
    begin = next((at for at, line in enumerate(lines) if not line.startswith(" ")), len(lines))
    end = next((at for at in range(begin, len(lines)) if _STAMPED.match(lines[at])), len(lines))
    return list(lines[begin:end])


def bound_log(path: Path) -> None:
    """Move a log file's content to `NAME.log.1` when it has grown past the bound.

    The child keeps its open file and appends to it, so the file is copied and cut; a line written between the
    two is lost.
    """
    if _size(path) > LOG_BYTES_MAX:
        shutil.copyfile(path, path.with_name(path.name + ".1"))
        with path.open("rb+") as file:
            file.truncate(0)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
