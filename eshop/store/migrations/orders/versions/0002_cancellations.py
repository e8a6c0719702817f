"""Orders that somebody wants ended, the answers given to who asked, and what operators did."""

from alembic import op

from eshop.store.migrations.operators_v1 import OPERATORS_V1

revision = "0002"
down_revision = "0001"

_CANCELLATIONS = """
ALTER TABLE orders
    ADD COLUMN cancellation_reason text CHECK (cancellation_reason IN ('user', 'timeout', 'refunded'));

DROP INDEX orders_overdue;
CREATE INDEX orders_overdue ON orders (repeat_at)
    WHERE status = 'NEW' OR (cancellation_reason IS NOT NULL AND status = 'FINISHED');

CREATE TABLE requests (
    user_id text COLLATE "C" NOT NULL REFERENCES users,
    route text NOT NULL,
    idempotency_key text COLLATE "C" NOT NULL,
    fingerprint bytea NOT NULL,
    answer jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, route, idempotency_key)
);
CREATE INDEX requests_created_at ON requests USING brin (created_at);
"""


def upgrade() -> None:
    """Add a column and tables that workers of the version before do not look at."""
    op.execute(_CANCELLATIONS)
    op.execute(OPERATORS_V1)
