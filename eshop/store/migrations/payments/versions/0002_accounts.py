"""Accounts that close, open again and are frozen, and what operators did to them."""

from alembic import op

from eshop.store.migrations.operators_v1 import OPERATORS_V1

revision = "0002"
down_revision = "0001"

_ACCOUNTS = """
ALTER TABLE wallets
    ADD COLUMN topped_up_minor bigint NOT NULL DEFAULT 0 CHECK (topped_up_minor >= 0),
    ADD COLUMN is_closed boolean NOT NULL DEFAULT false,
    ADD COLUMN is_frozen boolean NOT NULL DEFAULT false,
    ADD CHECK (balance_minor = 0 OR NOT is_closed);

UPDATE wallets SET topped_up_minor = came_in.amount_minor
FROM (
    SELECT user_id, sum(legs.amount_minor) AS amount_minor
    FROM transfers JOIN legs USING (transfer_id, user_id)
    WHERE kind = 'top_up'
    GROUP BY user_id
) AS came_in
WHERE wallets.user_id = came_in.user_id;
"""


def upgrade() -> None:
    """Add columns with defaults, so that workers of the version before go on beside the new ones.

    What they top up meanwhile is missing from ``topped_up_minor``, whose bound has room for it. A freeze
    holds once the last of them is gone.
    """
    op.execute(_ACCOUNTS)
    op.execute(OPERATORS_V1)
