"""Histories and keys: orders' paths, users' feed numbers, idempotency keys; a page in a snapshot."""

from eshop.audit.databases import PAGE_USERS, Database
from eshop.audit.findings import Findings

#: An order's history with its flaw; one row per order.
_PATHS = """
SELECT order_id, o.user_id, concat_ws(' ', o.status, o.reason) AS status, o.version,
    bool_and(s.order_id IS NULL) AS has_none
FROM (SELECT * FROM orders WHERE {page}) AS o LEFT JOIN LATERAL (
    SELECT h.*, lag(h.status) OVER path AS came_from, row_number() OVER path AS place,
        lead(h.order_id) OVER path IS NULL AS is_last
    FROM order_history AS h WHERE h.order_id = o.order_id WINDOW path AS (ORDER BY h.version)
) AS s USING (order_id)
WHERE s.order_id IS NULL
    OR s.version <> place
    OR s.user_id <> o.user_id
    OR concat_ws('>', came_from, s.status)
        NOT IN ('NEW', 'NEW>FINISHED', 'NEW>CANCELLED', 'FINISHED>CANCELLED')
    OR (s.reason IS NOT NULL) <> (s.status = 'CANCELLED')
    OR place = 1 AND s.feed_number <> o.feed_number
    OR is_last AND (s.version, s.status, s.reason) IS DISTINCT FROM (o.version, o.status, o.reason)
GROUP BY order_id, o.user_id, o.status, o.reason, o.version
ORDER BY order_id
"""
_PATH_OF = """
SELECT string_agg(concat_ws(' ', version, status, reason), ', ' ORDER BY version, feed_number) AS path
FROM order_history WHERE order_id = %(order_id)s
"""
_KEYS = """
SELECT user_id, idempotency_key, string_agg(order_id::text, ', ' ORDER BY feed_number) AS orders
FROM orders WHERE idempotency_key IS NOT NULL AND {page}
GROUP BY user_id, idempotency_key HAVING count(*) > 1
ORDER BY user_id, idempotency_key
"""
#: (table of users, table of their changes), by service.
_FEEDS = {"orders": ("users", "order_history"), "payments": ("wallets", "wallet_history")}
_NUMBERS = """
SELECT user_id, u.feed_number, entries, first, last
FROM (SELECT * FROM {users} WHERE {{page}}) AS u CROSS JOIN LATERAL (
    SELECT count(*) AS entries, min(h.feed_number) AS first, max(h.feed_number) AS last
    FROM {history} AS h WHERE h.user_id = u.user_id
) AS numbers
WHERE entries <> u.feed_number OR coalesce(first, 1) <> 1 OR coalesce(last, 0) <> u.feed_number
ORDER BY user_id
"""


def check_orders(orders: Database, findings: Findings) -> None:
    """Judge 5 and 8."""
    for snapshot, page in orders.pages("users", "user_id", PAGE_USERS):
        for row in snapshot.rows(_KEYS, page):
            findings.add(
                "5", {"user": row.user_id}, idempotency_key=row.idempotency_key, has_the_orders=row.orders
            )
    for snapshot, page in orders.pages("orders", "order_id"):
        for row in snapshot.rows(_PATHS, page):
            path = None if row.has_none else snapshot.rows(_PATH_OF, order_id=row.order_id)[0].path
            findings.add(
                "8",
                {"order": row.order_id, "user": row.user_id},
                order=f"{row.version} {row.status}",
                history=path,
            )


def check_feed(database: Database, findings: Findings) -> None:
    """Judge the second half of 9 for a service."""
    users, history = _FEEDS[database.service]
    sql = _NUMBERS.format(users=users, history=history)
    for snapshot, page in database.pages(users, "user_id", PAGE_USERS):
        for row in snapshot.rows(sql, page):
            findings.add(
                "9",
                {"user": row.user_id},
                **{
                    users: f"last number {row.feed_number}",
                    history: f"{row.entries} entries, from {row.first} to {row.last}",
                },
            )
