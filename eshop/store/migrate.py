"""Creates a service's database, roles and tables: at every start, and safely from many starters at once.

See docs/adr/0019-tables-that-grow-old.md.
"""

import logging
import time
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg2.errors
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg2 import sql
from psycopg2.extensions import parse_dsn
from sqlalchemy import Connection, Engine, NullPool, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from eshop.backoff import Backoff
from eshop.contracts.services import SERVICES
from eshop.store.turn import (
    CONNECT_SECONDS_MAX,
    KEEPALIVES,
    WAIT_SECONDS_MAX,
    MigrationBlocked,
    application_name,
    creation_turn,
)

logger = logging.getLogger(__name__)

_MIGRATIONS = Path(__file__).parent / "migrations"
_NEWEST = "head"
#: A statement that waits for a table's lock blocks every later one: it waits for a shorter time than a
#: request.
LOCK_MS_MAX = 800
#: A vacuum that is in the way gives up after another session has waited this long. Only a superuser may set
#: it.
_VACUUM_GIVES_WAY = text("""
    SELECT set_config('deadlock_timeout', '200ms', false)
    FROM pg_roles WHERE rolname = current_user AND rolsuper
""")
#: A migration that is stopped in a transaction keeps its locks no longer than this.
_IDLE_IN_TRANSACTION_MS_MAX = 10_000
#: A migration does not begin while somebody's transaction is older: an index would wait for its end.
OLD_TRANSACTION_SECONDS = 5.0
_PAUSE_SECONDS_FIRST = 0.5
_PAUSE_SECONDS_MAX = 8.0
_OLDEST_TRANSACTION = text("""
    SELECT pid, application_name, xact_start FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
        AND xact_start <= clock_timestamp() - make_interval(secs => :seconds)
    ORDER BY xact_start LIMIT 1
""")


class _InTheWay(Exception):
    """Another transaction keeps the migration from going on now."""


def migrate(service: str, url: str, admin_url: str) -> None:
    """Create or upgrade the service's database, its owner and its run-time role.

    ``url`` names the database and the run-time role, ``admin_url`` the maintenance database with a role that
    may create both. Blocks; other callers wait for their turn. A session that works on the database waits for
    the migration no longer than ``LOCK_MS_MAX``: the migration gives way, and tries again. Raises
    MigrationBlocked after ``WAIT_SECONDS_MAX`` of this, and psycopg2.OperationalError if Postgres can't be
    reached.
    """
    target = parse_dsn(url)
    database, role, password = (target.get(name, "") for name in ("dbname", "user", "password"))
    with creation_turn(service, admin_url) as connection:
        with connection.cursor() as cursor:
            _create_roles(cursor, database, role, password)
            _create_database(cursor, database, role)
        _upgrade(service, on_database(admin_url, url), f"{database}_owner", role)


def on_database(admin_url: str, url: str) -> str:
    """Return the administrator's address of the database in ``url``."""
    return urlunsplit(urlsplit(admin_url)._replace(path=urlsplit(url).path))


def _create_roles(cursor: psycopg2.extensions.cursor, database: str, role: str, password: str) -> None:
    for name in (f"{database}_owner", role):
        cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,))
        if cursor.fetchone() is None:
            cursor.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(name)))
    cursor.execute(
        sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(role), sql.Literal(password))
    )


def _create_database(cursor: psycopg2.extensions.cursor, database: str, role: str) -> None:
    cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,))
    name, owner = sql.Identifier(database), sql.Identifier(f"{database}_owner")
    if cursor.fetchone() is None:
        cursor.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, owner))
        logger.info("created the database %s", database)
    cursor.execute(sql.SQL("REVOKE CONNECT, TEMPORARY ON DATABASE {} FROM PUBLIC").format(name))
    cursor.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(name, sql.Identifier(role)))


def _upgrade(service: str, url: str, owner: str, role: str) -> None:
    """Upgrade, again and again while others are in the way: each attempt continues the last."""
    engine = create_engine(
        make_url(url).set(drivername="postgresql+psycopg2"),
        poolclass=NullPool,
        connect_args={
            "connect_timeout": CONNECT_SECONDS_MAX,
            "application_name": application_name(service),
            "options": f"-c lock_timeout={LOCK_MS_MAX} {KEEPALIVES}"
            f" -c idle_in_transaction_session_timeout={_IDLE_IN_TRANSACTION_MS_MAX}",
        },
    )
    begun, backoff = time.monotonic(), Backoff(_PAUSE_SECONDS_FIRST, _PAUSE_SECONDS_MAX)
    while True:
        try:
            return _try_upgrade(engine, service, owner, role)
        except _InTheWay as error:
            if time.monotonic() - begun > WAIT_SECONDS_MAX:
                raise MigrationBlocked(
                    f"the {service} database was not migrated within {WAIT_SECONDS_MAX:g} s: {error}"
                ) from error
            pause = backoff.failed()
            logger.warning("the migration of %s tries again in %g s: %s", service, pause, error)
            time.sleep(pause)


def _try_upgrade(engine: Engine, service: str, owner: str, role: str) -> None:
    try:
        with engine.connect() as connection:
            _go_on(connection, service, owner, role)
    except OperationalError as error:
        if not isinstance(error.orig, psycopg2.errors.LockNotAvailable | psycopg2.errors.DeadlockDetected):
            raise (error.orig or error) from error
        with engine.connect() as connection:
            who = _oldest_transaction(connection, older_than_seconds=0) or "one that has ended"
        raise _InTheWay(f"a lock was not to be had; the oldest transaction is {who}") from error


def _go_on(connection: Connection, service: str, owner: str, role: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.set_main_option("version_locations", str(_MIGRATIONS / service / "versions"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    script = ScriptDirectory.from_config(config)
    current = MigrationContext.configure(connection).get_current_revision()
    if current is not None and current not in {known.revision for known in script.walk_revisions()}:
        logger.warning("the %s database is of a newer version than this worker: left as it is", service)
        return
    if current != script.get_current_head():
        who = _oldest_transaction(connection, OLD_TRANSACTION_SECONDS)
        if who is not None:
            raise _InTheWay(f"it does not begin beside a long transaction, which is {who}")
    connection.execute(_VACUUM_GIVES_WAY)
    connection.execute(text(f'SET ROLE "{owner}"'))
    connection.commit()
    command.upgrade(config, _NEWEST)
    for grant in _grants(service, role):
        connection.execute(text(grant))
    connection.commit()


def _oldest_transaction(connection: Connection, older_than_seconds: float) -> str | None:
    found = connection.execute(_OLDEST_TRANSACTION, {"seconds": older_than_seconds}).first()
    return None if found is None else f"that of {found[1] or 'no name'}, pid {found[0]}, since {found[2]}"


def _grants(service: str, role: str) -> list[str]:
    """Return the rights of the run-time role: read and write rows, but only insert into the ledger."""
    return [
        "REVOKE ALL ON SCHEMA public FROM PUBLIC",
        f'GRANT USAGE ON SCHEMA public TO "{role}"',
        f'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO "{role}"',
        f'REVOKE UPDATE, DELETE ON {", ".join(SERVICES[service].insert_only)} FROM "{role}"',
        f'REVOKE INSERT, UPDATE, DELETE ON alembic_version FROM "{role}"',
    ]
