"""The tables as SQLAlchemy Core sees them. Alembic's migrations create them; a test compares the two.

``SHARED`` has the tables of every service. A service's tables are in its module of this package, NAME.py, as
``NAME`` in capitals.
"""

from importlib import import_module

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

_TIME = DateTime(timezone=True)
_ID = UUID(as_uuid=False)


def shared_tables(metadata: MetaData) -> None:
    """Add the tables of every service: messages, retention, and actions of operators."""
    Table(
        "inbox",
        metadata,
        Column("consumer", Text, primary_key=True),
        Column("message_id", _ID, primary_key=True),
        Column("topic", Text, nullable=False),
        Column("partition", Integer, nullable=False),
        Column("offset", BigInteger, nullable=False),
        Column("received_at", _TIME, nullable=False),
        Column("redelivered", Integer, nullable=False),
        Column("redelivered_at", _TIME),
    )
    Table(
        "outbox",
        metadata,
        Column("outbox_id", BigInteger, primary_key=True),
        Column("message_id", _ID, nullable=False, unique=True),
        Column("topic", Text, nullable=False),
        Column("user_id", Text, nullable=False),
        Column("type", Text, nullable=False),
        Column("source", Text, nullable=False),
        Column("dataschema", Text, nullable=False),
        Column("body", Text, nullable=False),
        Column("correlation_id", Text, nullable=False),
        Column("causation_id", Text, nullable=False),
        Column("traceparent", Text, nullable=False),
        Column("created_at", _TIME, nullable=False),
        Column("sent_at", _TIME),
        Column("sent_partition", Integer),
        Column("sent_offset", BigInteger),
    )
    Table(
        "watermarks",
        metadata,
        Column("consumer", Text, primary_key=True),
        Column("topic", Text, primary_key=True),
        Column("partition", Integer, primary_key=True),
        Column("next_offset", BigInteger, nullable=False),
    )
    _operations(metadata)


def _operations(metadata: MetaData) -> None:
    Table(
        "relay_lease",
        metadata,
        Column("only_row", Boolean, primary_key=True),
        Column("holder", Text, nullable=False),
        Column("token", BigInteger, nullable=False),
        Column("expires_at", _TIME, nullable=False),
    )
    Table(
        "requests",
        metadata,
        Column("user_id", Text, primary_key=True),
        Column("route", Text, primary_key=True),
        Column("idempotency_key", Text, primary_key=True),
        Column("fingerprint", LargeBinary, nullable=False),
        Column("answer", JSONB, nullable=False),
        Column("created_at", _TIME, nullable=False),
    )
    Table(
        "retention",
        metadata,
        Column("table_name", Text, primary_key=True),
        Column("removed_until", _TIME, nullable=False),
        Column("removals", BigInteger, nullable=False),
    )
    Table(
        "operator_actions",
        metadata,
        Column("action_id", _ID, primary_key=True),
        Column("action", Text, nullable=False),
        Column("user_id", Text),
        Column("order_id", _ID),
        Column("reason", Text, nullable=False),
        Column("operator", Text, nullable=False),
        Column("at", _TIME, nullable=False),
        Column("dead_letter_id", _ID),
    )
    Table(
        "dead_letters",
        metadata,
        Column("dead_letter_id", _ID, primary_key=True),
        Column("consumer", Text, nullable=False),
        Column("message_id", _ID, nullable=False),
        Column("topic", Text, nullable=False),
        Column("partition", Integer, nullable=False),
        Column("offset", BigInteger, nullable=False),
        Column("key", LargeBinary),
        Column("value", LargeBinary),
        Column("headers", JSONB, nullable=False),
        Column("type", Text),
        Column("user_id", Text),
        Column("order_id", _ID),
        Column("cause", Text, nullable=False),
        Column("error", Text, nullable=False),
        Column("status", Text, nullable=False),
        Column("parked_at", _TIME, nullable=False),
        Column("resolved_at", _TIME),
    )


def schema_of(service: str) -> MetaData:
    """Return the tables of a service of the catalogue, by its name."""
    found: MetaData = getattr(import_module(f"{__name__}.{service}"), service.upper())
    return found


#: For statements on the shared tables: they are the same in every service's database.
SHARED = MetaData()
shared_tables(SHARED)
