"""The audit's statements over rows that are newer than the server's statistics.

Autovacuum renews statistics some time after a table has grown. Until then the planner expects no row among
the newest keys, and a join without an index compares each row of a page with each other row.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest

from eshop.audit.databases import Database
from eshop.audit.findings import Findings
from eshop.audit.histories import check_feed, check_orders
from eshop.audit.ledger import check_ledger
from eshop.audit.outboxes import check_announcements
from eshop.audit.spool import Spool
from eshop.cluster.embedded import EmbeddedCluster
from eshop.store.migrate import migrate, on_database
from tests.support.builders import new_database_url

OLD, NEW = 2_000, 16_000
#: A plan that compares all rows of a page with each other costs several hundred times as much.
TIMES_MAX = 20

_ID = "lpad(to_hex(n), 32, '0')::uuid"
_ROWS = {
    "orders": f"""
        INSERT INTO users (user_id, feed_number) SELECT 'user-' || to_char(n, 'FM000000'), 1
            FROM generate_series(%(first)s::int, %(last)s) AS n;
        INSERT INTO orders (order_id, user_id, feed_number, amount_minor, currency, repeat_at)
            SELECT {_ID}, 'user-' || to_char(n, 'FM000000'), 1, 5, 'USD', now()
            FROM generate_series(%(first)s::int, %(last)s) AS n;
        INSERT INTO order_history (user_id, feed_number, order_id, version, status)
            SELECT 'user-' || to_char(n, 'FM000000'), 1, {_ID}, 1, 'NEW'
            FROM generate_series(%(first)s::int, %(last)s) AS n;
        """,
    "payments": f"""
        INSERT INTO wallets (user_id, balance_minor, currency, feed_number)
            SELECT 'user-' || to_char(n, 'FM000000'), 5, 'USD', 1
            FROM generate_series(%(first)s::int, %(last)s) AS n;
        INSERT INTO transfers (transfer_id, kind, user_id, currency)
            SELECT {_ID}, 'top_up', 'user-' || to_char(n, 'FM000000'), 'USD'
            FROM generate_series(%(first)s::int, %(last)s) AS n;
        INSERT INTO legs (transfer_id, leg, account, user_id, amount_minor)
            SELECT {_ID}, 1, 'wallet', 'user-' || to_char(n, 'FM000000'), 5
            FROM generate_series(%(first)s::int, %(last)s) AS n;
        INSERT INTO legs (transfer_id, leg, account, amount_minor)
            SELECT {_ID}, 2, 'external_funds', -5
            FROM generate_series(%(first)s::int, %(last)s) AS n;
        INSERT INTO wallet_history (user_id, feed_number, balance_minor, currency, transfer_id)
            SELECT 'user-' || to_char(n, 'FM000000'), 1, 5, 'USD', {_ID}
            FROM generate_series(%(first)s::int, %(last)s) AS n;
        """,
}


def _announce(database: Database, findings: Findings) -> None:
    with Spool() as spool:
        check_announcements(database, spool, findings)


CHECKS: list[tuple[str, Callable[[Database, Findings], None]]] = [
    ("orders", check_orders),
    ("orders", check_feed),
    ("orders", _announce),
    ("payments", check_ledger),
    ("payments", check_feed),
    ("payments", _announce),
]


@pytest.fixture(scope="module")
def urls(cluster: EmbeddedCluster) -> dict[str, str]:
    """Databases whose statistics know the old rows only."""
    urls = {}
    for service, rows in _ROWS.items():
        urls[service] = new_database_url(cluster.postgres_admin_url, service)
        migrate(service, urls[service], cluster.postgres_admin_url)
        for session in _superuser(cluster, urls[service]):
            session.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            for (table,) in session.fetchall():
                session.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
            session.execute(rows, {"first": 1, "last": OLD})
            session.execute("ANALYZE")
            session.execute(rows, {"first": OLD + 1, "last": OLD + NEW})
    return urls


def _superuser(cluster: EmbeddedCluster, url: str) -> Iterator[Any]:
    connection = psycopg2.connect(on_database(cluster.postgres_admin_url, url))
    try:
        with connection, connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


def _seconds(service: str, url: str, check: Callable[[Database, Findings], None]) -> float:
    with Database(service, url) as database:
        began = time.perf_counter()
        check(database, Findings())
        return time.perf_counter() - began


@pytest.mark.timeout(300)
def test_new_rows_cost_what_known_rows_cost(cluster: EmbeddedCluster, urls: dict[str, str]) -> None:
    late = [_seconds(service, urls[service], check) for service, check in CHECKS]
    for url in urls.values():
        for session in _superuser(cluster, url):
            session.execute("ANALYZE")
    known = [_seconds(service, urls[service], check) for service, check in CHECKS]
    assert [new / old for new, old in zip(late, known, strict=True) if new > TIMES_MAX * old] == []
