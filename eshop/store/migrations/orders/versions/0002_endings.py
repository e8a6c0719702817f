"""Orders that somebody wants ended, and what operators did."""

from alembic import op

from eshop.store.migrations.operators_v1 import OPERATORS_V1

revision = "0002"
down_revision = "0001"

_ENDINGS = """
ALTER TABLE orders
    ADD COLUMN ending text CHECK (ending IN ('user', 'timeout', 'refunded'));

DROP INDEX orders_overdue;
CREATE INDEX orders_overdue ON orders (ask_at)
    WHERE status = 'NEW' OR (ending IS NOT NULL AND status = 'FINISHED');
"""


def upgrade() -> None:
    """Add a column and a table that workers of the version before do not look at."""
    op.execute(_ENDINGS)
    op.execute(OPERATORS_V1)
