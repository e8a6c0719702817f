"""Retention: removes in bulk what nothing stands on any more."""

from collections.abc import Iterable
from functools import partial

from eshop.store.database import Database, Session

#: How long rows are kept, in days. A message stays in the inbox for as long as its topic may show it again
#: (7 days), and longer; one in the outbox until no topic can lose it; an answer as long as clients may retry;
#: a dead letter for ever, unless it was replayed or discarded.
KEPT_DAYS = {"outbox": 8, "inbox": 15, "requests": 7, "dead_letters": 30}
_TIMES = {
    "outbox": "created_at",
    "inbox": "received_at",
    "requests": "created_at",
    "dead_letters": "resolved_at",
}
_ALSO = {"outbox": "AND sent_at IS NOT NULL"}
#: Rows of a table removed by one transaction.
ROWS_MAX = 10_000


async def remove_expired(database: Database, tables: Iterable[str]) -> None:
    """Remove all expired rows of the tables, up to ``ROWS_MAX`` in a transaction."""
    for table in sorted(KEPT_DAYS.keys() & tables):
        while await database.run_alone(partial(_remove, table=table)) == ROWS_MAX:
            pass  # as many may be left


async def _remove(session: Session, table: str) -> int:
    expired = (
        f"SELECT ctid FROM {table} WHERE {_TIMES[table]} < now() - make_interval(days => {KEPT_DAYS[table]})"  # noqa: S608
        f" {_ALSO.get(table, '')} LIMIT {ROWS_MAX}"
    )
    return len(await session.run_sql(f"DELETE FROM {table} WHERE ctid = ANY (ARRAY({expired})) RETURNING 1"))  # noqa: S608
