"""A service's database: the pool, and the only way to run a transaction.

See docs/adr/0005-drivers.md.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import cache
from typing import Any, TypeVar, cast

import aiopg
import psycopg2
import psycopg2.errors
from psycopg2.extras import NamedTupleCursor
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2
from sqlalchemy.sql.expression import ClauseElement

from eshop.cancellation import bounded
from eshop.store.faults import BrokenAssertion, LockTimeout, TransientFault

logger = logging.getLogger(__name__)

#: A worker has two pools: requests never delay the worker's own work.
WORK_CONNECTIONS_MAX = 5
REQUEST_CONNECTIONS_MAX = 6
ACQUIRE_SECONDS_MAX = 5.0
#: A connection, one statement, and what is left to the driver.
ALONE_SECONDS_MAX = 12.0
CLOSE_SECONDS_MAX = 4.0
#: Bounds at the server, so that a stopped process does not keep rows locked.
STATEMENT_MS_MAX = 5_000
LOCK_MS_MAX = 4_000
IDLE_IN_TRANSACTION_MS_MAX = 5_000

T = TypeVar("T")
_Way = Callable[[Any, "Session", Callable[["Session"], Awaitable[Any]]], Awaitable[Any]]
_DIALECT = PGDialect_psycopg2(paramstyle="pyformat")  # type: ignore[no-untyped-call]
_TRANSIENT = (psycopg2.OperationalError, psycopg2.InterfaceError, TimeoutError, OSError, AssertionError)
#: Errors of the pool and the driver after a lost connection: they assert that the connection is there, and
#: uvloop refuses to watch a closed socket.
_BROKEN = (AssertionError, RuntimeError)
_OPTIONS = (
    f"-c statement_timeout={STATEMENT_MS_MAX} -c lock_timeout={LOCK_MS_MAX}"
    f" -c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_MS_MAX} -c timezone=UTC"
)


class Session:
    """Runs SQLAlchemy Core statements on one connection, and counts them."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor
        self._after_commit: list[Callable[[], None]] = []
        self.statements = 0

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called once the transaction has committed."""
        self._after_commit.append(callback)

    def committed(self) -> None:
        """Call the callback after the commit."""
        for callback in self._after_commit:
            callback()

    async def bound_lock_wait(self, milliseconds_max: int) -> None:
        """Bound the lock waits of the rest of the transaction."""
        await self.run_sql(f"SET LOCAL lock_timeout = {milliseconds_max}")

    async def run(self, statement: ClauseElement, **parameters: Any) -> list[Any]:
        """Execute, and return all rows as named tuples; an empty list for a statement without rows."""
        text, literals = _compiled(statement)
        return await self.run_sql(text, {**literals, **parameters})

    async def run_sql(self, text: str, parameters: dict[str, Any] | None = None) -> list[Any]:
        """Execute SQL text; like ``run``."""
        self.statements += 1
        try:
            await self._cursor.execute(text, parameters)
            return list(await self._cursor.fetchall()) if self._cursor.description else []
        except _BROKEN as error:
            raise TransientFault("the driver is in a state it did not expect") from error


class Database:
    """A pool of connections. Every transaction runs in its own task, which no caller can cancel."""

    def __init__(self, url: str, application: str, connections_max: int = WORK_CONNECTIONS_MAX) -> None:
        """Prepare; ``application`` is how Postgres shows the connections to operators."""
        self.url = url
        self._application = application
        self._connections_max = connections_max
        self._pool: Any = None
        self._units: set[asyncio.Task[Any]] = set()

    async def open(self) -> None:
        """Connect; raise psycopg2.OperationalError on failure."""
        self._pool = await aiopg.create_pool(
            self.url,
            minsize=1,
            maxsize=self._connections_max,
            timeout=ACQUIRE_SECONDS_MAX,
            enable_uuid=False,
            enable_hstore=False,
            cursor_factory=NamedTupleCursor,
            options=_OPTIONS,
            application_name=self._application,
        )

    async def close(self) -> None:
        """Let running transactions end, then disconnect; after ``CLOSE_SECONDS_MAX`` abort them."""
        if self._units:
            await asyncio.wait(self._units, timeout=CLOSE_SECONDS_MAX)
        if self._pool is None:
            return
        if self._units:
            logger.warning("disconnecting from the database with %d transactions running", len(self._units))
            self._pool.terminate()
        self._pool.close()
        await bounded(self._pool.wait_closed(), CLOSE_SECONDS_MAX)
        self._pool = None

    async def transact(self, work: Callable[[Session], Awaitable[T]]) -> T:
        """Run ``work`` in one READ COMMITTED transaction and return its result, after COMMIT.

        Raises TransientFault if the connection or the answer to COMMIT was lost, or time ran out: the work
        may be done or not, and must be safe to repeat. Otherwise raises the error of ``work`` or of the
        server, after ROLLBACK. If the caller is cancelled, the transaction runs to its end.
        """
        return await asyncio.shield(self._begun(self._unit(work, _transaction)))

    async def run_alone(self, work: Callable[[Session], Awaitable[T]]) -> T:
        """Run ``work``, a single statement, as a transaction by itself; otherwise like ``transact``."""
        unit = self._begun(self._unit(work, _alone))
        await asyncio.wait({unit}, timeout=ALONE_SECONDS_MAX)
        if not unit.done():
            raise TransientFault(f"no answer from the database in {ALONE_SECONDS_MAX:g} s")
        return unit.result()

    def _begun(self, unit: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.create_task(unit)
        self._units.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, unit: "asyncio.Task[Any]") -> None:
        self._units.discard(unit)
        if not unit.cancelled():
            unit.exception()  # whoever began it may have left

    async def _unit(self, work: Callable[[Session], Awaitable[T]], way: _Way) -> T:
        if self._pool is None:
            raise TransientFault("the database is not connected")
        try:
            connection = await self._acquire()
            try:
                async with connection.cursor() as cursor:
                    return cast("T", await way(connection, Session(cursor), _judging(work)))
            finally:
                await self._pool.release(connection)
        except asyncio.CancelledError as error:
            # aiopg turns a statement timeout at the server into a CancelledError.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise TransientFault("the server cancelled a statement") from error
        except psycopg2.errors.LockNotAvailable as error:
            raise LockTimeout(str(error)) from error
        except BrokenAssertion:
            raise
        except _TRANSIENT as error:
            raise TransientFault(str(error) or type(error).__name__) from error

    async def _acquire(self) -> Any:
        try:
            return await self._pool.acquire()
        except _BROKEN as error:
            raise TransientFault(f"the pool could not connect: {error}") from error


def _judging(work: Callable[[Session], Awaitable[T]]) -> Callable[[Session], Awaitable[T]]:
    """Tell assertions of the work, which are about its data, from assertions of the pool and the driver."""

    async def judged(session: Session) -> T:
        try:
            return await work(session)
        except AssertionError as error:
            raise BrokenAssertion(str(error)) from error

    return judged


async def _alone(_connection: Any, session: Session, work: Callable[[Session], Awaitable[T]]) -> T:
    return await work(session)


async def _transaction(connection: Any, session: Session, work: Callable[[Session], Awaitable[T]]) -> T:
    await session.run_sql("BEGIN")
    try:
        result = await work(session)
        await session.run_sql("COMMIT")
    except BaseException:
        await _roll_back(connection, session)
        raise
    session.committed()
    return result


async def _roll_back(connection: Any, session: Session) -> None:
    """Leave a clean connection to the pool, or none."""
    if connection.closed:
        return
    try:
        await session.run_sql("ROLLBACK")
    except (psycopg2.Error, TimeoutError):
        await connection.close()


@cache
def _compiled(statement: ClauseElement) -> tuple[str, dict[str, Any]]:
    """Return SQL and the literals' values. Statements are module constants: the cache stays small."""
    compiled = statement.compile(dialect=_DIALECT)
    literals = {name: value for name, value in compiled.params.items() if value is not None}
    return str(compiled), literals
