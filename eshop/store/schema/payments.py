"""The tables of the payments service."""

from sqlalchemy import BigInteger, Boolean, Column, DateTime, MetaData, SmallInteger, Table, Text
from sqlalchemy.dialects.postgresql import UUID

from eshop.store.schema import shared_tables

_TIME = DateTime(timezone=True)
_ID = UUID(as_uuid=False)

PAYMENTS = MetaData()
shared_tables(PAYMENTS)
Table(
    "wallets",
    PAYMENTS,
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
    PAYMENTS,
    Column("user_id", Text, primary_key=True),
    Column("feed_number", BigInteger, primary_key=True),
    Column("balance_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("transfer_id", _ID),
    Column("at", _TIME, nullable=False),
)
Table(
    "payments",
    PAYMENTS,
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
    PAYMENTS,
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
    PAYMENTS,
    Column("transfer_id", _ID, primary_key=True),
    Column("leg", SmallInteger, primary_key=True),
    Column("account", Text, nullable=False),
    Column("user_id", Text),
    Column("amount_minor", BigInteger, nullable=False),
)
