"""Migrations beside others: nobody who works waits for long, and who is in the way is named."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
import psycopg2.errors
import pytest

from eshop.cluster.embedded import EmbeddedCluster
from eshop.store import migrate as migrate_module
from eshop.store import turn as turn_module
from eshop.store.migrate import migrate, on_database
from eshop.store.turn import CREATION_LOCK, MigrationBlocked
from tests.support.builders import new_database_url

SECONDS_MAX = 60
VACUUM_SHARE = "autovacuum_vacuum_scale_factor"
#: What a worker does for an order and a message.
ORDER = (
    'INSERT INTO inbox (consumer, message_id, topic, partition, "offset")'
    " VALUES ('orders', uuidv7(), 't', 0, 0);"
    " INSERT INTO users (user_id) VALUES ('ann') ON CONFLICT DO NOTHING;"
    " UPDATE users SET feed_number = feed_number + 1 WHERE user_id = 'ann';"
    " INSERT INTO orders (order_id, user_id, feed_number, amount_minor, currency, repeat_at)"
    " SELECT gen_random_uuid(), user_id, feed_number, 5, 'USD', now() FROM users WHERE user_id = 'ann';"
    " INSERT INTO outbox (topic, user_id, type, source, dataschema, body, correlation_id, causation_id)"
    " VALUES ('t', 'ann', 't', 's', 'd', 'b', 'c', 'c')"
)


@pytest.fixture
def early_version(cluster: EmbeddedCluster, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an orders database of an early version, whose upgrade changes the inbox."""
    url = new_database_url(cluster.postgres_admin_url, "orders")
    with monkeypatch.context() as patch:
        patch.setattr(migrate_module, "_NEWEST", "0002")
        migrate("orders", url, cluster.postgres_admin_url)
    return url


@contextmanager
def connected(url: str, name: str) -> Iterator[Any]:
    """Yield a cursor of somebody with a name, each statement by itself."""
    connection = psycopg2.connect(url, application_name=name, options="-c lock_timeout=4000")
    connection.autocommit = True
    try:
        yield connection.cursor()
    finally:
        connection.close()


@contextmanager
def migrating(cluster: EmbeddedCluster, url: str) -> Iterator[threading.Thread]:
    """Have a thread migrate, and see at the end that it has ended well."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            migrate("orders", url, cluster.postgres_admin_url)
        except BaseException as error:  # noqa: BLE001  told by the assertion
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(SECONDS_MAX)
    assert not thread.is_alive()
    assert failures == []


def until(happened: Callable[[], object]) -> None:
    """Wait until something has happened."""
    deadline = time.monotonic() + SECONDS_MAX
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def version(cluster: EmbeddedCluster, url: str) -> str:
    """Return the version a database is at."""
    with connected(on_database(cluster.postgres_admin_url, url), "looking") as cursor:
        cursor.execute("SELECT version_num FROM alembic_version")
        return str(cursor.fetchone()[0])


def tries(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the lines about tries that met somebody."""
    return [line for line in caplog.messages if "tries again" in line]


@pytest.mark.parametrize("old_seconds", [0.0, 3_600.0], ids=["known", "met"])
def test_orders_are_placed_while_a_snapshot_keeps_a_migration_waiting(
    cluster: EmbeddedCluster,
    early_version: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    old_seconds: float,
) -> None:
    monkeypatch.setattr(migrate_module, "OLD_TRANSACTION_SECONDS", old_seconds)
    admin_url = on_database(cluster.postgres_admin_url, early_version)
    with connected(admin_url, "a-dump") as dump, connected(early_version, "a-worker") as worker:
        dump.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM inbox")
        with caplog.at_level(logging.WARNING), migrating(cluster, early_version):
            placed = 0
            while len(tries(caplog)) < 3:
                worker.execute(ORDER)  # raises LockNotAvailable behind whoever waits too long
                placed += 1
            assert all("a-dump" in line for line in tries(caplog))
            assert version(cluster, early_version) == "0002"
            dump.execute("ROLLBACK")
        worker.execute(ORDER)
        dump.execute("SELECT count(*) FROM orders")
        assert dump.fetchone() == (placed + 1,)
    assert version(cluster, early_version) == "0004"


def test_migration_that_is_blocked_for_too_long_says_by_whom_and_changes_nothing(
    cluster: EmbeddedCluster, early_version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate_module, "OLD_TRANSACTION_SECONDS", 0.0)
    monkeypatch.setattr(migrate_module, "WAIT_SECONDS_MAX", 0.2)
    with connected(on_database(cluster.postgres_admin_url, early_version), "a-dump") as dump:
        dump.execute("BEGIN; SELECT 1 FROM inbox")
        with pytest.raises(MigrationBlocked, match=r"orders database was not migrated within .* a-dump, pid"):
            migrate("orders", early_version, cluster.postgres_admin_url)
    assert version(cluster, early_version) == "0002"
    migrate("orders", early_version, cluster.postgres_admin_url)
    assert version(cluster, early_version) == "0004"


def indexes(cursor: Any, *, valid: bool) -> set[str]:
    """Return the names of the indexes of the public schema that are valid, or not."""
    cursor.execute(
        "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
        f" WHERE i.indisvalid = {valid} AND c.relnamespace = 'public'::regnamespace"
    )
    return {name for (name,) in cursor.fetchall()}


def test_index_that_was_left_half_made_is_made_anew_and_old_ones_go(
    cluster: EmbeddedCluster, early_version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(migrate_module, "_NEWEST", "0003")
        migrate("orders", early_version, cluster.postgres_admin_url)
    admin_url = on_database(cluster.postgres_admin_url, early_version)
    with connected(admin_url, "a-dump") as dump, connected(admin_url, "a-migration") as cursor:
        dump.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM inbox")
        cursor.execute("SET lock_timeout = 100")
        with pytest.raises(psycopg2.errors.LockNotAvailable):
            cursor.execute("CREATE INDEX CONCURRENTLY inbox_received_on ON inbox (received_at)")
        dump.execute("ROLLBACK")
        assert indexes(cursor, valid=False) == {"inbox_received_on"}
        migrate("orders", early_version, cluster.postgres_admin_url)
        assert indexes(cursor, valid=False) == set()
        found = indexes(cursor, valid=True)
    assert found >= {"outbox_sent_at", "inbox_received_on", "requests_created_on", "dead_letters_resolved_at"}
    assert not found & {"outbox_created_at", "inbox_received_at", "requests_created_at"}


def test_starter_without_a_turn_says_who_has_it_and_ends(
    cluster: EmbeddedCluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(turn_module, "SAY_EVERY_SECONDS", 0.1)
    monkeypatch.setattr(turn_module, "WAIT_SECONDS_MAX", 1.0)
    url = new_database_url(cluster.postgres_admin_url, "orders")
    with connected(cluster.postgres_admin_url, "a-frozen-starter") as holder:
        holder.execute(f"SELECT pg_advisory_lock({CREATION_LOCK}), pg_backend_pid()")
        pid = holder.fetchone()[1]
        with pytest.raises(MigrationBlocked, match=rf"pid {pid} \(a-frozen-starter from .*, since "):
            migrate("orders", url, cluster.postgres_admin_url)
    said = [line for line in caplog.messages if f"pid {pid} (a-frozen-starter" in line]
    assert len(said) > 1
    migrate("orders", url, cluster.postgres_admin_url)


FROZEN = """
import os, signal, sys
from eshop.store import migrate, turn
turn.SILENT_SECONDS_MAX = 2
def freeze(*_):
    print("frozen", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
migrate._upgrade = freeze
migrate.migrate("orders", *sys.argv[1:])
"""


def test_process_that_is_stopped_loses_the_turn(cluster: EmbeddedCluster) -> None:
    url = new_database_url(cluster.postgres_admin_url, "orders")
    words = (sys.executable, "-c", FROZEN, url, cluster.postgres_admin_url)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as frozen:
        try:
            assert frozen.stdout is not None
            assert frozen.stdout.readline() == "frozen\n"
            migrate("orders", url, cluster.postgres_admin_url)
        finally:
            os.kill(frozen.pid, signal.SIGKILL)
    assert version(cluster, url) == "0004"


@pytest.mark.parametrize(("service", "users"), [("orders", "users"), ("payments", "wallets")])
def test_tables_that_change_are_vacuumed_early_and_a_forgotten_transaction_ends(
    cluster: EmbeddedCluster, service: str, users: str
) -> None:
    url = new_database_url(cluster.postgres_admin_url, service)
    migrate(service, url, cluster.postgres_admin_url)
    with connected(on_database(cluster.postgres_admin_url, url), "looking") as cursor:
        cursor.execute("SHOW idle_in_transaction_session_timeout")
        assert cursor.fetchone() == ("10min",)
        cursor.execute(
            "SELECT relname, option_name, option_value::float FROM pg_class, pg_options_to_table(reloptions)"
            " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
        options = {(table, name): value for table, name, value in cursor.fetchall()}
    shares = {table: value for (table, name), value in options.items() if name == VACUUM_SHARE}
    # A constant number of dead rows; a fiftieth of the rows; a hundredth.
    assert shares == {
        **dict.fromkeys(("watermarks", "relay_lease"), 0.0),
        users: 0.02,
        **dict.fromkeys(("outbox", "inbox", "requests"), 0.01),
    }
    assert options[users, "fillfactor"] == 70
