"""Tables that stay quick when they are old, and references that are each user's own."""

from alembic import op

from eshop.store.migrations.messaging_v3 import upgrade_messaging
from eshop.store.migrations.online import add_index

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Change indexes and storage only; every statement may be repeated.

    The reference comes first in its index: workers of the version before look for it without the user.
    """
    upgrade_messaging("wallets")
    add_index(
        "transfers_reference_user", "transfers (reference, user_id) WHERE reference IS NOT NULL", unique=True
    )
    op.execute("ALTER TABLE transfers DROP CONSTRAINT IF EXISTS transfers_reference_key")
