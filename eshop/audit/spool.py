"""A snapshot's rows, kept for the comparison with a later snapshot or a topic: in a file, not in memory."""

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any, Self

MEMORY_KIB_MAX = 16_384

_TABLES = """
CREATE TABLE entries (
    user_id TEXT, feed_number INTEGER, cause TEXT, announced INTEGER DEFAULT 0,
    PRIMARY KEY (user_id, feed_number)
) WITHOUT ROWID;
CREATE TABLE sent (
    topic TEXT, partition INTEGER, at INTEGER, outbox_id INTEGER,
    message_id TEXT, digest TEXT, is_old INTEGER,
    PRIMARY KEY (topic, partition, at, outbox_id)
) WITHOUT ROWID;
CREATE TABLE questions (
    message_id TEXT PRIMARY KEY, user_id TEXT, place TEXT, answers INTEGER DEFAULT 0
) WITHOUT ROWID;
"""


class Spool:
    """Tables of a temporary file that vanishes with the spool; little of it is in memory."""

    def __init__(self) -> None:
        # An empty name is a private file. One thread at a time uses it.
        self._connection = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{MEMORY_KIB_MAX}"):
            self._connection.execute(f"PRAGMA {setting}")
        self._connection.executescript(_TABLES)
        self._connection.execute("BEGIN")

    def write(self, sql: str, rows: Iterable[tuple[Any, ...]] = ((),)) -> None:
        """Run a statement for each row."""
        self._connection.executemany(sql, rows)

    def read(self, sql: str, *parameters: object) -> Iterator[Any]:
        """Yield the rows of a query, one after the other."""
        yield from self._connection.execute(sql, parameters)

    def close(self) -> None:
        """Remove the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        """Return the spool."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()
