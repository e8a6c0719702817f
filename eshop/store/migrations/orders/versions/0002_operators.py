"""What operators did to orders."""

from alembic import op

from eshop.store.migrations.operators_v1 import OPERATORS_V1

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add a table that workers of the version before do not look at."""
    op.execute(OPERATORS_V1)
