"""Orders, their history, and the row that orders each user's changes."""

from alembic import op

from eshop.store.migrations.messaging_v1 import MESSAGING_V1

revision = "0001"
down_revision = None

_TABLES = """
CREATE TABLE users (
    user_id text COLLATE "C" PRIMARY KEY CHECK (user_id <> ''),
    feed_number bigint NOT NULL DEFAULT 0 CHECK (feed_number >= 0)
);

CREATE TABLE orders (
    order_id uuid PRIMARY KEY,
    user_id text COLLATE "C" NOT NULL REFERENCES users,
    feed_number bigint NOT NULL,
    amount_minor bigint NOT NULL CHECK (amount_minor BETWEEN 1 AND 1000000000),
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    description text NOT NULL DEFAULT '',
    items jsonb NOT NULL DEFAULT '[]',
    status text NOT NULL DEFAULT 'NEW' CHECK (status IN ('NEW', 'FINISHED', 'CANCELLED')),
    reason text CHECK ((reason IS NOT NULL) = (status = 'CANCELLED')),
    version integer NOT NULL DEFAULT 1 CHECK (version >= 1),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    repeat_at timestamptz NOT NULL,
    idempotency_key text COLLATE "C",
    fingerprint bytea CHECK ((fingerprint IS NULL) = (idempotency_key IS NULL)),
    UNIQUE (user_id, feed_number),
    UNIQUE (user_id, idempotency_key)
);
CREATE INDEX orders_overdue ON orders (repeat_at) WHERE status = 'NEW';

CREATE TABLE order_history (
    user_id text COLLATE "C" NOT NULL REFERENCES users,
    feed_number bigint NOT NULL CHECK (feed_number >= 1),
    order_id uuid NOT NULL REFERENCES orders,
    version integer NOT NULL,
    status text NOT NULL,
    reason text,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, feed_number),
    UNIQUE (order_id, version)
);
"""


def upgrade() -> None:
    """Make the tables."""
    op.execute(MESSAGING_V1)
    op.execute(_TABLES)
