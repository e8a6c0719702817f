"""The tables as SQLAlchemy Core sees them. Alembic's migrations create them; a test compares the two."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
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


def _orders() -> MetaData:
    metadata = MetaData()
    shared_tables(metadata)
    Table(
        "users",
        metadata,
        Column("user_id", Text, primary_key=True),
        Column("feed_number", BigInteger, nullable=False),
    )
    Table(
        "orders",
        metadata,
        Column("order_id", _ID, primary_key=True),
        Column("user_id", Text, nullable=False),
        Column("feed_number", BigInteger, nullable=False),
        Column("amount_minor", BigInteger, nullable=False),
        Column("currency", Text, nullable=False),
        Column("description", Text, nullable=False),
        Column("items", JSONB, nullable=False),
        Column("status", Text, nullable=False),
        Column("reason", Text),
        Column("version", Integer, nullable=False),
        Column("created_at", _TIME, nullable=False),
        Column("updated_at", _TIME, nullable=False),
        Column("repeat_at", _TIME, nullable=False),
        Column("cancellation_reason", Text),
        Column("idempotency_key", Text),
        Column("fingerprint", LargeBinary),
    )
    Table(
        "order_history",
        metadata,
        Column("user_id", Text, primary_key=True),
        Column("feed_number", BigInteger, primary_key=True),
        Column("order_id", _ID, nullable=False),
        Column("version", Integer, nullable=False),
        Column("status", Text, nullable=False),
        Column("reason", Text),
        Column("at", _TIME, nullable=False),
    )
    return metadata


def _payments() -> MetaData:
    metadata = MetaData()
    shared_tables(metadata)
    Table(
        "wallets",
        metadata,
        Column("user_id", Text, primary_key=True),
        Column("feed_number", BigInteger, nullable=False),
        Column("balance_minor", BigInteger, nullable=False),
        Column("currency", Text),
        Column("topped_up_minor", BigInteger, nullable=False),
        Column("is_closed", Boolean, nullable=False),
        Column("is_frozen", Boolean, nullable=False),
    )
    Table(
        "wallet_history",
        metadata,
        Column("user_id", Text, primary_key=True),
        Column("feed_number", BigInteger, primary_key=True),
        Column("balance_minor", BigInteger, nullable=False),
        Column("currency", Text, nullable=False),
        Column("transfer_id", _ID),
        Column("at", _TIME, nullable=False),
    )
    Table(
        "payments",
        metadata,
        Column("order_id", _ID, primary_key=True),
        Column("user_id", Text, nullable=False),
        Column("status", Text, nullable=False),
        Column("amount_minor", BigInteger),
        Column("currency", Text),
        Column("reason", Text),
        Column("wallet_version", BigInteger),
        Column("balance_after_minor", BigInteger),
        Column("decided_at", _TIME, nullable=False),
    )
    Table(
        "transfers",
        metadata,
        Column("transfer_id", _ID, primary_key=True),
        Column("kind", Text, nullable=False),
        Column("user_id", Text, nullable=False),
        Column("currency", Text, nullable=False),
        Column("order_id", _ID),
        Column("reference", Text),
        Column("created_at", _TIME, nullable=False),
    )
    Table(
        "legs",
        metadata,
        Column("transfer_id", _ID, primary_key=True),
        Column("leg", SmallInteger, primary_key=True),
        Column("account", Text, nullable=False),
        Column("user_id", Text),
        Column("amount_minor", BigInteger, nullable=False),
    )
    return metadata


ORDERS = _orders()
PAYMENTS = _payments()
