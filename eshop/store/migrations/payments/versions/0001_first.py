"""Wallets, payments and the ledger."""

from alembic import op

from eshop.store.migrations.messaging_v1 import MESSAGING_V1

revision = "0001"
down_revision = None

_TABLES = """
CREATE TABLE wallets (
    user_id text COLLATE "C" PRIMARY KEY CHECK (user_id <> ''),
    feed_number bigint NOT NULL DEFAULT 0 CHECK (feed_number >= 0),
    balance_minor bigint NOT NULL DEFAULT 0 CHECK (balance_minor >= 0),
    currency text CHECK (currency ~ '^[A-Z]{3}$'),
    CHECK (currency IS NOT NULL OR balance_minor = 0)
);

CREATE TABLE payments (
    order_id uuid PRIMARY KEY,
    user_id text COLLATE "C" NOT NULL REFERENCES wallets,
    status text NOT NULL CHECK (status IN ('CAPTURED', 'REFUSED', 'REFUNDED')),
    amount_minor bigint CHECK (amount_minor > 0),
    currency text,
    reason text CHECK ((reason IS NULL) = (status = 'CAPTURED')),
    wallet_version bigint CHECK ((wallet_version IS NULL) = (status = 'REFUSED')),
    balance_after_minor bigint CHECK ((balance_after_minor IS NULL) = (status = 'REFUSED')),
    decided_at timestamptz NOT NULL DEFAULT now(),
    CHECK (status = 'REFUSED' OR (amount_minor IS NOT NULL AND currency IS NOT NULL))
);

CREATE TABLE transfers (
    transfer_id uuid PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('top_up', 'capture', 'refund')),
    user_id text COLLATE "C" NOT NULL REFERENCES wallets,
    currency text NOT NULL,
    order_id uuid CHECK ((order_id IS NULL) = (kind = 'top_up')),
    reference text,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (order_id, kind),
    UNIQUE (reference)
);

CREATE TABLE legs (
    transfer_id uuid NOT NULL REFERENCES transfers,
    leg smallint NOT NULL,
    account text NOT NULL CHECK (account IN ('wallet', 'external_funds', 'sales', 'refunds')),
    user_id text COLLATE "C" CHECK ((user_id IS NOT NULL) = (account = 'wallet')),
    amount_minor bigint NOT NULL CHECK (amount_minor <> 0),
    PRIMARY KEY (transfer_id, leg)
);
CREATE INDEX legs_user ON legs (user_id) WHERE user_id IS NOT NULL;

CREATE TABLE wallet_history (
    user_id text COLLATE "C" NOT NULL REFERENCES wallets,
    feed_number bigint NOT NULL CHECK (feed_number >= 1),
    balance_minor bigint NOT NULL CHECK (balance_minor >= 0),
    currency text NOT NULL,
    transfer_id uuid UNIQUE REFERENCES transfers,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, feed_number)
);

CREATE TABLE requests (
    user_id text COLLATE "C" NOT NULL REFERENCES wallets,
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
    """Make the tables."""
    op.execute(MESSAGING_V1)
    op.execute(_TABLES)
