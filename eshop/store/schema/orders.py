"""The tables of the orders service."""

from sqlalchemy import BigInteger, Column, DateTime, Integer, LargeBinary, MetaData, Table, Text
from sqlalchemy.dialects.postgresql import JSONB, UUID

from eshop.store.schema import shared_tables

_TIME = DateTime(timezone=True)
_ID = UUID(as_uuid=False)

ORDERS = MetaData()
shared_tables(ORDERS)
Table(
    "users",
    ORDERS,
    Column("user_id", Text, primary_key=True),
    Column("feed_number", BigInteger, nullable=False),
)
Table(
    "orders",
    ORDERS,
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
    ORDERS,
    Column("user_id", Text, primary_key=True),
    Column("feed_number", BigInteger, primary_key=True),
    Column("order_id", _ID, nullable=False),
    Column("version", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("reason", Text),
    Column("at", _TIME, nullable=False),
)
