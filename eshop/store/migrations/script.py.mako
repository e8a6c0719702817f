"""${message}"""

from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    """Migrate forward. There is no way back: a mistake is mended by a further version."""
    ${upgrades if upgrades else "op.execute('')"}
