"""How versions change tables while workers use them. For who writes a version:

- ``lock_timeout`` is below a second, and a version that met it is run again from its beginning. So it is one
  short transaction, or each of its statements may be repeated (``IF NOT EXISTS``, ``IF EXISTS``).
- It takes the locks of few tables, and writes many rows in none of the transactions that have such a lock.
- Indexes on tables with rows are made and dropped by ``add_index`` and ``drop_index``: writers go on.
- A constraint is added ``NOT VALID`` and validated by a later statement; a unique one is a unique index.
- Workers of the version before go on beside it: columns are added with defaults, and dropped a version later.

See docs/adr/0019-tables-that-grow-old.md.
"""

from alembic import op
from sqlalchemy import text

#: An index waits for transactions that began before it; nobody waits for the index meanwhile.
_INDEX_WAIT = "SET lock_timeout = '60s'"
_IS_INVALID = text("SELECT NOT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")


def add_index(name: str, definition: str, *, unique: bool = False) -> None:
    """Make an index if it is missing. An invalid index of an earlier attempt is made again."""
    kind = "UNIQUE INDEX" if unique else "INDEX"
    with op.get_context().autocommit_block():
        op.execute(_INDEX_WAIT)
        try:
            if op.get_bind().execute(_IS_INVALID, {"name": name}).scalar():
                op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE {kind} CONCURRENTLY IF NOT EXISTS {name} ON {definition}")
        finally:
            op.execute("RESET lock_timeout")


def drop_index(name: str) -> None:
    """Drop an index if it exists."""
    with op.get_context().autocommit_block():
        op.execute(_INDEX_WAIT)
        try:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        finally:
            op.execute("RESET lock_timeout")
