"""How orders, accounts and times look to a client."""

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import orjson
from google.protobuf.timestamp_pb2 import Timestamp

from eshop.contracts.proto import orders_v1_pb2, payments_v1_pb2
from eshop.contracts.statuses import CANCELLED, FINISHED, NEW
from gateway.cache import Fresh

#: The time for which a gateway without news may show a copy: the sooner an object changes, the shorter.
ORDER_TTL_SECONDS: Mapping[str, int] = MappingProxyType({NEW: 1, FINISHED: 10, CANCELLED: 60})
ACCOUNT_TTL_SECONDS = 10


def time_text(at: datetime) -> str:
    """Return RFC 3339 in UTC, always with microseconds, so that equal times are equal text."""
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def stamp_text(stamp: Timestamp) -> str:
    """Return a protobuf time as `time_text` would."""
    return time_text(stamp.ToDatetime(tzinfo=UTC))


def order_view(order: orders_v1_pb2.Order) -> dict[str, Any]:
    """Return an order in its public form."""
    return {
        "order_id": order.order_id,
        "status": order.status,
        "reason": order.reason or None,
        "amount_minor": order.amount_minor,
        "currency": order.currency,
        "description": order.description or None,
        "items": [
            {
                "sku": item.sku,
                "name": item.name,
                "quantity": item.quantity,
                "unit_price_minor": item.unit_price_minor,
            }
            for item in order.items
        ],
        "version": order.version,
        "created_at": stamp_text(order.created_at),
        "updated_at": stamp_text(order.updated_at),
    }


def fresh_order(order: orders_v1_pb2.Order) -> Fresh:
    """Return an order for the cache."""
    ttl_seconds = ORDER_TTL_SECONDS.get(order.status, min(ORDER_TTL_SECONDS.values()))
    return Fresh(order.version, orjson.dumps(order_view(order)), ttl_seconds)


def wallet_view(balance_minor: int, currency: str, version: int) -> dict[str, Any]:
    """Return the common part of an account and the feed's wallet frames."""
    return {"balance_minor": balance_minor, "currency": currency, "version": version}


def account_view(account: payments_v1_pb2.Account) -> dict[str, Any]:
    """Return an account in its public form; ``frozen`` is there only if true."""
    view = wallet_view(account.balance_minor, account.currency, account.version)
    return view | {"frozen": True} if account.frozen else view


def fresh_account(account: payments_v1_pb2.Account) -> Fresh:
    """Return an account for the cache."""
    return Fresh(account.version, orjson.dumps(account_view(account)), ACCOUNT_TTL_SECONDS)


def transfer_view(leg: payments_v1_pb2.Transfer) -> dict[str, Any]:
    """Return a line of an account's statement."""
    return {
        "transfer_id": leg.transfer_id,
        "kind": leg.kind,
        "amount_minor": leg.amount_minor,
        "balance_minor": leg.balance_minor,
        "currency": leg.currency,
        "version": leg.version,
        "order_id": leg.order_id or None,
        "reference": leg.reference or None,
        "at": stamp_text(leg.at),
    }
