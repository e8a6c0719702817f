"""Indexes by the age of rows, positions of retention, and the storage of hot tables.

The same in both services.
"""

from alembic import op

from eshop.store.migrations.online import add_index, drop_index

_RETENTION = """
CREATE TABLE IF NOT EXISTS retention (
    table_name text PRIMARY KEY,
    removed_until timestamptz NOT NULL DEFAULT '-infinity',
    removals bigint NOT NULL DEFAULT 0 CHECK (removals >= 0)
);
INSERT INTO retention (table_name) VALUES ('outbox'), ('inbox'), ('requests'), ('dead_letters')
ON CONFLICT DO NOTHING;
"""
#: Rows that are changed again and again. No index contains the changed columns (HOT); dead versions are
#: removed soon.
_HOT = "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500"
#: One row for each user, changed in any order: each page has room for the next version of some rows.
_USERS = "fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02"
#: Many rows, each written once or twice: vacuumed after a pass of retention, not after a fifth of all rows.
_LONG = """
    autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.02
"""
#: A forgotten BEGIN blocks vacuum, and every writer with it. Dumps and audits set a limit of their own.
_FORGOTTEN = """
DO $$ BEGIN EXECUTE
    format('ALTER DATABASE %I SET idle_in_transaction_session_timeout = ''10min''', current_database());
END $$
"""


def upgrade_messaging(users: str) -> None:
    """Change the tables of messages, and the storage of ``users``, the table whose rows each change locks.

    Workers of the version before go on unchanged.
    """
    op.execute(_RETENTION)
    op.execute(_FORGOTTEN)
    storage = {users: _USERS, **dict.fromkeys(("watermarks", "relay_lease"), _HOT)}
    storage |= dict.fromkeys(("outbox", "inbox", "requests"), _LONG)
    for table, settings in storage.items():
        op.execute(f"ALTER TABLE {table} SET ({settings})")
    add_index("outbox_sent_at", "outbox (sent_at) WHERE sent_at IS NOT NULL")
    add_index("inbox_received_on", "inbox (received_at)")
    add_index("requests_created_on", "requests (created_at)")
    add_index("dead_letters_resolved_at", "dead_letters (resolved_at) WHERE resolved_at IS NOT NULL")
    for block_range_index in ("outbox_created_at", "inbox_received_at", "requests_created_at"):
        drop_index(block_range_index)
