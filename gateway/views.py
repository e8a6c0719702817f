"""How orders, accounts and times look to a client."""

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import orjson
from google.protobuf.timestamp_pb2 import Timestamp

from eshop.cache import Fresh
from eshop.contracts.proto import orders_v1_pb2, payments_v1_pb2

NEW = "NEW"
FINISHED = "FINISHED"
CANCELLED = "CANCELLED"
STATUSES = (NEW, FINISHED, CANCELLED)

#: How long a gateway that heard of no change may show a copy: the sooner a thing changes, the shorter.
ORDER_TTL_SECONDS: Mapping[str, int] = MappingProxyType({NEW: 1, FINISHED: 10, CANCELLED: 60})
ACCOUNT_TTL_SECONDS = 10


def time_text(at: datetime) -> str:
    """Return RFC 3339 in UTC, always with microseconds, so that equal times are equal text."""
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def stamp_text(stamp: Timestamp) -> str:
    """Return a protobuf time as `time_text` would."""
    return time_text(stamp.ToDatetime(tzinfo=UTC))


def order_view(order: orders_v1_pb2.Order) -> dict[str, Any]:
    """Return an order as a client sees it."""
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


def account_view(balance_minor: int, currency: str, version: int) -> dict[str, Any]:
    """Return an account as its owner sees it."""
    return {"balance_minor": balance_minor, "currency": currency, "version": version}


def fresh_account(account: payments_v1_pb2.Account) -> Fresh:
    """Return an account for the cache."""
    view = account_view(account.balance_minor, account.currency, account.version)
    return Fresh(account.version, orjson.dumps(view), ACCOUNT_TTL_SECONDS)
