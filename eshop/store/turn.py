"""The turn to create and migrate databases: one starter at a time; others log whom they wait for."""

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2
from psycopg2.extensions import ISOLATION_LEVEL_AUTOCOMMIT, connection, cursor

logger = logging.getLogger(__name__)

#: Any number, the same for every starter of a shop.
CREATION_LOCK = 7_239_001
CONNECT_SECONDS_MAX = 10
#: The longest wait of a starter in all. Then it ends, and its supervisor starts it again.
WAIT_SECONDS_MAX = 300.0
SAY_EVERY_SECONDS = 5.0
POLL_SECONDS = 0.2
#: The holder of the turn shows that it runs; the server takes the turn from a stopped process.
SIGN_OF_LIFE_SECONDS = 5.0
SILENT_SECONDS_MAX = 30
#: A peer that vanishes is noticed within 25 s.
KEEPALIVES = "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"

_HOLDER = """
SELECT a.pid, a.application_name, a.client_addr, a.backend_start
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND (l.classid, l.objid, l.objsubid) = (0, %s, 1)
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class MigrationBlocked(Exception):
    """Another session was in the way for too long. The text names it, and nothing was left half-done."""


def application_name(service: str) -> str:
    """Return how Postgres shows a starter's connections to operators and to other starters."""
    return f"eshop-migrate-{service}-{os.getpid()}@{socket.gethostname()}"


@contextmanager
def creation_turn(service: str, admin_url: str) -> Iterator[connection]:
    """Yield a connection to the maintenance database that has the turn until the end of the block.

    Waits for others and logs the holder repeatedly; raises MigrationBlocked after ``WAIT_SECONDS_MAX``, and
    psycopg2.OperationalError if Postgres can't be reached. A stopped process loses the turn after
    ``SILENT_SECONDS_MAX``; a dead process loses it at once.
    """
    mine = psycopg2.connect(
        admin_url,
        connect_timeout=CONNECT_SECONDS_MAX,
        application_name=application_name(service),
        options=f"-c idle_session_timeout={SILENT_SECONDS_MAX * 1_000} {KEEPALIVES}",
    )
    try:
        mine.set_isolation_level(ISOLATION_LEVEL_AUTOCOMMIT)
        with mine.cursor() as asking:
            _take_turn(asking)
        with _showing_life(mine):
            yield mine
    finally:
        mine.close()  # and with it goes the advisory lock


def _take_turn(asking: cursor) -> None:
    begun = time.monotonic()
    say_at = begun + SAY_EVERY_SECONDS
    while True:
        asking.execute("SELECT pg_try_advisory_lock(%s)", (CREATION_LOCK,))
        if asking.fetchone() == (True,):
            return
        now = time.monotonic()
        if now - begun > WAIT_SECONDS_MAX:
            raise MigrationBlocked(
                f"no turn to migrate within {WAIT_SECONDS_MAX:g} s: {_holder(asking)} has it. "
                "End that process or its connection (pg_terminate_backend), then start again"
            )
        if now > say_at:
            say_at = now + SAY_EVERY_SECONDS
            logger.warning("waits for the turn to migrate (%.0f s): %s has it", now - begun, _holder(asking))
        time.sleep(POLL_SECONDS)


def _holder(asking: cursor) -> str:
    asking.execute(_HOLDER, (CREATION_LOCK,))
    found = asking.fetchone()
    if found is None:
        return "nobody any more"
    pid, application, address, since = found
    return f"Postgres' pid {pid} ({application or 'no name'} from {address or 'here'}, since {since})"


@contextmanager
def _showing_life(mine: connection) -> Iterator[None]:
    ended = threading.Event()

    def show() -> None:
        while not ended.wait(SIGN_OF_LIFE_SECONDS):
            try:
                with mine.cursor() as living:
                    living.execute("SELECT 1")
            except psycopg2.Error as error:
                logger.warning("the turn to migrate was lost: %s", str(error).strip())
                return

    shower = threading.Thread(target=show, name="migration turn", daemon=True)
    shower.start()
    try:
        yield
    finally:
        ended.set()
        shower.join()
