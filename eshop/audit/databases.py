"""A service's database, read page by page: each page in a short snapshot of its own.

A held snapshot keeps vacuum from removing dead rows, and keeps a migration waiting.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Self

import psycopg2
from psycopg2.extensions import ISOLATION_LEVEL_REPEATABLE_READ
from psycopg2.extras import NamedTupleCursor

from eshop.audit.findings import NotJudged

#: The longest life of a snapshot: then the server ends the session, and the audit has no verdict.
SNAPSHOT_SECONDS_MAX = 30
PAGE_ROWS = 5_000
#: Users in a page: each has many rows in other tables.
PAGE_USERS = 500
CONNECT_SECONDS_MAX = 5
#: Pages are read by an index, and few of their rows are in memory; sorts go to the server's disk.
_OPTIONS = (
    "-c transaction_timeout={milliseconds} -c lock_timeout=5000 -c cursor_tuple_fraction=1"
    " -c random_page_cost=1.1 -c work_mem=32MB -c jit=off -c timezone=UTC"
)


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of a table and of its dependent tables, chosen by key with an SQL condition.

    A statement that is read by pages contains ``{page}`` for the condition. Dependent tables are joined by
    LATERAL subqueries that their indexes answer: the planner expects no row among keys that are newer than
    the table's statistics, and would compare each row of one subquery with each row of the other.
    """

    condition: str = "TRUE"
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def between(cls, key: str, after: Any, upto: Any) -> Self:
        """Return the page after a key and up to another; None is the first or the last."""
        bounds = {"page_after": after, "page_upto": upto}
        given = {name: value for name, value in bounds.items() if value is not None}
        operators = {"page_after": ">", "page_upto": "<="}
        return cls(" AND ".join(f"({key}) {operators[name]} %({name})s" for name in given) or "TRUE", given)

    @classmethod
    def of(cls, key: str, ids: Sequence[str]) -> Self:
        """Return the page of some ids."""
        return cls(f"{key} = ANY (%(page_ids)s::uuid[])", {"page_ids": list(ids)})


class Snapshot:
    """A database at the time of the snapshot."""

    def __init__(self, service: str, connection: Any, names: Iterator[str]) -> None:
        """Take the snapshot: the first statement of a transaction does."""
        self.service = service
        self._connection = connection
        self._names = names
        self._ends = time.monotonic() + SNAPSHOT_SECONDS_MAX
        # Databases of an older version have no dead letters yet.
        self.has_dead_letters: bool = self.rows("SELECT to_regclass('dead_letters') IS NOT NULL AS it")[0].it

    def rows(self, sql: str, page: Page | None = None, **parameters: object) -> list[Any]:
        """Return all rows of a small statement, as named tuples."""
        if page is not None:
            sql, parameters = sql.format(page=page.condition), parameters | dict(page.parameters)
        with self._cursor() as cursor:
            cursor.execute(sql, parameters)
            return list(cursor.fetchall())

    def stream(self, sql: str, **parameters: object) -> Iterator[Any]:
        """Yield the rows of a large statement; one page of rows is in memory."""
        with self._cursor(name=next(self._names)) as cursor:
            cursor.itersize = PAGE_ROWS
            cursor.execute(sql, parameters)
            yield from cursor

    @contextmanager
    def _cursor(self, **options: str) -> Iterator[Any]:
        try:
            with self._connection.cursor(**options) as cursor:
                yield cursor
        except psycopg2.OperationalError as error:
            if time.monotonic() < self._ends:
                raise
            raise NotJudged(
                f"{self.service}: a snapshot would have lived for more than {SNAPSHOT_SECONDS_MAX:g} s"
            ) from error


class Database:
    """A connection to a service's database, which takes snapshots one after the other."""

    def __init__(self, service: str, url: str) -> None:
        """Connect. Raises psycopg2.Error on failure."""
        self.service = service
        self._names = (f"audit_{number}" for number in count())
        self._connection = psycopg2.connect(
            url,
            options=_OPTIONS.format(milliseconds=round(SNAPSHOT_SECONDS_MAX * 1_000)),
            connect_timeout=CONNECT_SECONDS_MAX,
            application_name="eshop-audit",
            cursor_factory=NamedTupleCursor,
        )
        self._connection.set_session(isolation_level=ISOLATION_LEVEL_REPEATABLE_READ, readonly=True)

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """Take a snapshot, and release it."""
        try:
            yield Snapshot(self.service, self._connection, self._names)
        finally:
            with suppress(psycopg2.Error):
                self._connection.rollback()

    def pages(self, table: str, key: str, size: int | None = None) -> Iterator[tuple[Snapshot, Page]]:
        """Yield the pages of a table in the order of its key's columns, each with a snapshot.

        The last page has no end: it includes rows of other tables beyond the table's last key.
        """
        after = None
        while True:
            with self.snapshot() as snapshot:
                rest = Page.between(key, after, None)
                last = snapshot.rows(
                    f"SELECT {key} FROM {table} WHERE {{page}} ORDER BY {key}"  # noqa: S608
                    f" OFFSET {(size or PAGE_ROWS) - 1} LIMIT 1",
                    rest,
                )
                upto = tuple(last[0]) if last else None
                yield snapshot, Page.between(key, after, upto)
            if upto is None:
                return
            after = upto

    def close(self) -> None:
        """Disconnect."""
        with suppress(psycopg2.Error):
            self._connection.close()

    def __enter__(self) -> Self:
        """Return the database."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()


def parts(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Yield a sequence in parts that are small enough for a statement."""
    for start in range(0, len(items), PAGE_ROWS):
        yield items[start : start + PAGE_ROWS]


def outer_merge(*streams: Iterator[Any]) -> Iterator[tuple[Any, ...]]:
    """Yield, in order, for every first column the row of each stream, None if a stream has none.

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
