"""Makes a service's database, its two roles and its tables: at every start, and safely at once from many."""

import logging
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg2
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg2 import sql
from psycopg2.extensions import ISOLATION_LEVEL_AUTOCOMMIT, parse_dsn
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import make_url

logger = logging.getLogger(__name__)

#: Any number, the same for everybody who creates databases of a shop.
_CREATION_LOCK = 7_239_001
_CONNECT_SECONDS_MAX = 10
_MIGRATIONS = Path(__file__).parent / "migrations"
#: Rows of these are only ever inserted: a ledger can't forget.
_INSERT_ONLY = {
    "payments": ("transfers", "legs", "wallet_history", "operator_actions"),
    "orders": ("order_history", "operator_actions"),
}


def migrate(service: str, url: str, admin_url: str) -> None:
    """Bring the service's database, its owner and its run-time role to the newest version, or make them.

    ``url`` names the database and the run-time role, ``admin_url`` the maintenance database as someone who
    may create both. Blocks; other callers wait for their turn. Raises psycopg2.OperationalError where
    Postgres can't be reached.
    """
    target = parse_dsn(url)
    database, role, password = (target.get(name, "") for name in ("dbname", "user", "password"))
    connection = psycopg2.connect(admin_url, connect_timeout=_CONNECT_SECONDS_MAX)
    try:
        connection.set_isolation_level(ISOLATION_LEVEL_AUTOCOMMIT)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", (_CREATION_LOCK,))
            _create_roles(cursor, database, role, password)
            _create_database(cursor, database, role)
            _upgrade(service, on_database(admin_url, url), f"{database}_owner", role)
    finally:
        connection.close()  # and with it goes the advisory lock


def on_database(admin_url: str, url: str) -> str:
    """Return the administrator's address of the database that ``url`` names."""
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
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg2"))
    try:
        with engine.begin() as connection:
            connection.execute(text(f'SET ROLE "{owner}"'))
            config = Config()
            config.set_main_option("script_location", str(_MIGRATIONS))
            config.set_main_option("version_locations", str(_MIGRATIONS / service / "versions"))
            config.set_main_option("path_separator", "os")
            config.attributes["connection"] = connection
            if _is_newer(connection, config):
                logger.warning(
                    "the %s database is of a newer version than this worker: left as it is", service
                )
                return
            command.upgrade(config, "head")
            for grant in _grants(service, role):
                connection.execute(text(grant))
    finally:
        engine.dispose()


def _is_newer(connection: Connection, config: Config) -> bool:
    """Tell whether the database has a version that this code does not know yet."""
    current = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    return current is not None and current not in known


def _grants(service: str, role: str) -> list[str]:
    """Return what the run-time role may do: read and write rows, and nothing to the ledger but add."""
    return [
        "REVOKE ALL ON SCHEMA public FROM PUBLIC",
        f'GRANT USAGE ON SCHEMA public TO "{role}"',
        f'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO "{role}"',
        f'REVOKE UPDATE, DELETE ON {", ".join(_INSERT_ONLY[service])} FROM "{role}"',
        f'REVOKE INSERT, UPDATE, DELETE ON alembic_version FROM "{role}"',
    ]
