"""Tables that stay quick when they are old."""

from eshop.store.migrations.messaging_v3 import upgrade_messaging

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Change indexes and storage only; every statement may be repeated."""
    upgrade_messaging("users")
