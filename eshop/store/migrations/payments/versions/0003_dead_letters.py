"""Dead letters, and how often a message came again."""

from alembic import op

from eshop.store.migrations.messaging_v2 import MESSAGING_V2

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add columns with defaults and a table: workers of the version before do not look at them."""
    op.execute(MESSAGING_V2)
