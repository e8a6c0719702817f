"""An outbox against the history that it announces; its sent rows are spooled for the topics."""

from collections.abc import Iterator
from typing import Any

from eshop.audit.databases import Database
from eshop.audit.findings import Findings
from eshop.audit.spool import Spool
from eshop.contracts.services import AUDITED

#: How long topics keep messages. Outboxes keep them a day longer: older rows are not judged.
RETENTION_DAYS = 7

#: (table of changes, its entries), by service. A wallet's change by a message is announced with the
#: transfer's id as its cause; a repeated announcement of the same outcome has another cause.
_ENTRIES = {
    "orders": (
        "order_history",
        """
        SELECT user_id, feed_number, NULL AS cause, at >= now() - make_interval(days => %(days)s) AS is_judged
        FROM order_history WHERE {page}
        """,
    ),
    "payments": (
        "wallet_history",
        """
        SELECT h.user_id, h.feed_number,
            CASE WHEN t.kind IN ('capture', 'refund') THEN h.transfer_id END AS cause,
            h.at >= now() - make_interval(days => %(days)s) AS is_judged
        FROM (SELECT * FROM wallet_history WHERE {page}) AS h LEFT JOIN transfers AS t USING (transfer_id)
        """,
    ),
}
#: Contents travel as a digest, the same as is made of a record.
_OUTBOX = """
SELECT outbox_id, message_id, topic, user_id, causation_id, sent_partition AS partition, sent_offset AS at,
    CASE WHEN topic = ANY (%(numbered)s) THEN (body::jsonb ->> 'feed_number')::bigint END AS feed_number,
    md5(convert_to(concat_ws(E'\\n', user_id, type, body), 'UTF8')) AS digest,
    coalesce(sent_at < now() - make_interval(days => %(days)s), false) AS is_old
FROM outbox WHERE {page}
"""
_NUMBERED = [service.events.name for service in AUDITED]
_KEEP_ENTRY = "INSERT INTO entries (user_id, feed_number, cause) VALUES (?, ?, ?)"
_COUNT = """
UPDATE entries SET announced = announced + 1
WHERE user_id = ? AND feed_number = ? AND (cause IS NULL OR cause = ?)
"""
_KEEP_SENT = "INSERT INTO sent VALUES (?, ?, ?, ?, ?, ?, ?)"


def check_announcements(database: Database, spool: Spool, findings: Findings) -> None:
    """Judge 11 for a service, and spool the sent rows of its outbox.

    An entry and its message are of one transaction: entries that were read first all have their rows.
    """
    _spool_entries(database, spool, findings)
    _count_messages(database, spool)
    for entry in spool.read("SELECT * FROM entries WHERE announced <> 1 ORDER BY user_id, feed_number"):
        findings.add(
            "11",
            {"user": entry["user_id"]},
            **{_ENTRIES[database.service][0]: f"number {entry['feed_number']}"},
            outbox=f"{entry['announced']} rows with that number",
        )
    spool.write("DELETE FROM entries")


def _spool_entries(database: Database, spool: Spool, findings: Findings) -> None:
    history, sql = _ENTRIES[database.service]
    for snapshot, page in database.pages(history, "user_id, feed_number"):
        rows = snapshot.rows(sql, page, days=RETENTION_DAYS)
        judged = [(row.user_id, row.feed_number, row.cause) for row in rows if row.is_judged]
        spool.write(_KEEP_ENTRY, judged)
        findings.checked["history_entries"] += len(judged)
        findings.unjudged["history_entries"] += len(rows) - len(judged)


def _count_messages(database: Database, spool: Spool) -> None:
    for snapshot, page in database.pages("outbox", "outbox_id"):
        rows = snapshot.rows(_OUTBOX, page, days=RETENTION_DAYS, numbered=_NUMBERED)
        numbered = [
            (row.user_id, row.feed_number, row.causation_id) for row in rows if row.feed_number is not None
        ]
        spool.write(_COUNT, numbered)
        sent = [row for row in rows if row.at is not None]
        spool.write(
            _KEEP_SENT,
            [(r.topic, r.partition, r.at, r.outbox_id, r.message_id, r.digest, r.is_old) for r in sent],
        )


class Sent:
    """The rows that an outbox has sent to a topic, taken range by range in the topic's order."""

    def __init__(self, spool: Spool, topic: str) -> None:
        self._rows: Iterator[Any] = spool.read(
            "SELECT * FROM sent WHERE topic = ? ORDER BY partition, at, outbox_id", topic
        )
        self._next = next(self._rows, None)

    def until(self, partition: int, offset: int) -> Iterator[Any]:
        """Take the rows up to, and without, a place."""
        while self._next is not None and (self._next["partition"], self._next["at"]) < (partition, offset):
            yield self._next
            self._next = next(self._rows, None)
