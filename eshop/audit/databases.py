"""A service's database as it was at one moment, read page by page."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import count
from typing import Any, Self

import psycopg2
from psycopg2.extensions import ISOLATION_LEVEL_REPEATABLE_READ
from psycopg2.extras import NamedTupleCursor

PAGE_ROWS = 5_000
CONNECT_SECONDS_MAX = 5
#: One statement, or one page of a long one: a million orders sort in seconds, a stopped disk never ends.
STATEMENT_MS_MAX = 600_000
#: All rows of a cursor are wanted, so plans are chosen for the whole; sorts go to the server's disk.
_OPTIONS = (
    f"-c statement_timeout={STATEMENT_MS_MAX} -c lock_timeout=5000 -c idle_in_transaction_session_timeout=0"
    " -c cursor_tuple_fraction=1 -c work_mem=32MB -c jit=off -c timezone=UTC"
)


class Snapshot:
    """A read-only transaction that sees the database as it was when it was opened."""

    def __init__(self, service: str, url: str) -> None:
        """Connect, and take the snapshot. Raises psycopg2.Error where that can't be done."""
        self.service = service
        self._names = (f"audit_{number}" for number in count())
        self._connection = psycopg2.connect(
            url,
            options=_OPTIONS,
            connect_timeout=CONNECT_SECONDS_MAX,
            application_name="eshop-audit",
            cursor_factory=NamedTupleCursor,
        )
        self._connection.set_session(isolation_level=ISOLATION_LEVEL_REPEATABLE_READ, readonly=True)
        # The first statement takes the snapshot. Databases of an older version have no dead letters yet.
        self.has_dead_letters: bool = self.rows("SELECT to_regclass('dead_letters') IS NOT NULL AS it")[0].it

    def rows(self, sql: str, **parameters: object) -> list[Any]:
        """Return all rows of a statement that has few, as named tuples."""
        with self._connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            return list(cursor.fetchall())

    def stream(self, sql: str, **parameters: object) -> Iterator[Any]:
        """Yield the rows of a statement that has many; one page of them is in memory."""
        with self._connection.cursor(name=next(self._names)) as cursor:
            cursor.itersize = PAGE_ROWS
            cursor.execute(sql, parameters)
            yield from cursor

    def close(self) -> None:
        """End the transaction."""
        with suppress(psycopg2.Error):
            self._connection.close()

    def __enter__(self) -> Self:
        """Return the snapshot."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


def pages(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Yield a sequence in parts that one statement may name."""
    for start in range(0, len(items), PAGE_ROWS):
        yield items[start : start + PAGE_ROWS]


class ByPlace:
    """Rows ordered by their columns ``partition`` and ``at``, taken range by range."""

    def __init__(self, rows: Iterator[Any]) -> None:
        self._rows = rows
        self._next = next(rows, None)

    def until(self, partition: int, offset: int) -> Iterator[Any]:
        """Yield the rows up to, and without, a place; they are gone then."""
        while self._next is not None and (self._next.partition, self._next.at) < (partition, offset):
            yield self._next
            self._next = next(self._rows, None)


def outer_merge(*streams: Iterator[Any]) -> Iterator[tuple[Any, ...]]:
    """Yield, in order, for every first column the row of each stream, None where one has none.

    Each stream is ordered by its first column, which is unique in it.
    """
    heads = [next(stream, None) for stream in streams]
    while any(head is not None for head in heads):
        least = min(head[0] for head in heads if head is not None)
        taken = tuple(head if head is not None and head[0] == least else None for head in heads)
        yield taken
        for index, row in enumerate(taken):
            if row is not None:
                heads[index] = next(streams[index], None)
