"""Orders and their history. The history is the user's feed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Integer,
    LargeBinary,
    Text,
    and_,
    any_,
    bindparam,
    cast,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID
from sqlalchemy.sql.expression import ClauseElement

from eshop.domain.order import Order, OrderStatus
from eshop.store.bulk import array_parameters, array_table
from eshop.store.database import Session
from eshop.store.schema.orders import ORDERS

#: The longest time between two cancellation requests for an open order.
REPEAT_SECONDS_MAX = 300

_orders = ORDERS.tables["orders"]
_history = ORDERS.tables["order_history"]


@dataclass(frozen=True, slots=True)
class StoredOrder:
    """A stored order: its state plus the fields that no transition reads.

    ``feed_number`` is the user's feed number at creation. At ``repeat_at`` the cancellation of an open order
    is requested again.
    """

    order: Order
    feed_number: int
    description: str
    items: list[dict[str, Any]]
    created_at: datetime
    updated_at: datetime
    repeat_at: datetime = field(compare=False)  # the deadline task's, no part of what the order is
    idempotency_key: str | None
    fingerprint: bytes | None


@dataclass(frozen=True, slots=True)
class NewOrder:
    """An order to be inserted; ``items_json`` is a JSON array."""

    order: Order
    feed_number: int
    description: str
    items_json: str
    idempotency_key: str | None
    fingerprint: bytes | None


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """A change of an order, at its place in the user's feed."""

    feed_number: int
    order: Order


@dataclass(frozen=True, slots=True)
class CancellationRequest:
    """The request to cancel an order without a charge, with the reason."""

    order_id: str
    user_id: str
    reason: str


_ids = cast(bindparam("order_ids"), ARRAY(UUID))
_GET = select(_orders).where(_orders.c.order_id == any_(_ids))

_keys = array_table(user_id=Text, idempotency_key=Text)
_BY_KEY = select(_orders).where(
    tuple_(_orders.c.user_id, _orders.c.idempotency_key).in_(select(_keys.c.user_id, _keys.c.idempotency_key))
)

_NEW_COLUMNS = {
    "order_id": UUID,
    "user_id": Text,
    "feed_number": BigInteger,
    "amount_minor": BigInteger,
    "currency": Text,
    "description": Text,
    "items": Text,
    "idempotency_key": Text,
    "fingerprint": LargeBinary,
}
_new = array_table(**_NEW_COLUMNS)
_deadline = func.make_interval(0, 0, 0, 0, 0, 0, bindparam("deadline_seconds"))
_ADD = (
    insert(_orders)
    .from_select(
        [*_NEW_COLUMNS, "repeat_at"],
        select(
            *(cast(_new.c[name], JSONB) if name == "items" else _new.c[name] for name in _NEW_COLUMNS),
            func.now() + _deadline,
        ).order_by(_new.c.position),
        include_defaults=False,
    )
    .returning(_orders)
)

_moved = array_table(order_id=UUID, status=Text, reason=Text, version=Integer)
_MOVE = (
    update(_orders)
    .where(_orders.c.order_id == _moved.c.order_id)
    .values(status=_moved.c.status, reason=_moved.c.reason, version=_moved.c.version, updated_at=func.now())
)

_HISTORY_COLUMNS = {
    "user_id": Text,
    "feed_number": BigInteger,
    "order_id": UUID,
    "version": Integer,
    "status": Text,
    "reason": Text,
}
_entries = array_table(**_HISTORY_COLUMNS)
_RECORD = insert(_history).from_select(
    list(_HISTORY_COLUMNS), select(*(_entries.c[name] for name in _HISTORY_COLUMNS)), include_defaults=False
)

#: Overdue orders: NEW past the deadline, or cancelled by request and not yet confirmed by payments.
_open = or_(
    _orders.c.status == OrderStatus.NEW.value,
    and_(_orders.c.cancellation_reason.is_not(None), _orders.c.status == OrderStatus.FINISHED.value),
)
_overdue = and_(_open, _orders.c.repeat_at <= func.now())
_OVERDUE = (
    select(_orders.c.order_id, _orders.c.user_id)
    .where(_overdue)
    .order_by(_orders.c.repeat_at)
    .limit(bindparam("limit"))
)
_END = (
    update(_orders)
    .where(_orders.c.order_id == any_(_ids))
    # The first reason stays: a repeated request is the same request.
    .values(
        cancellation_reason=func.coalesce(_orders.c.cancellation_reason, cast(bindparam("reason"), Text)),
        repeat_at=func.now() + _deadline,
    )
    .returning(_orders.c.order_id, _orders.c.user_id, _orders.c.cancellation_reason)
)
#: With growing intervals: if payments lags, more requests would only keep it lagging.
_age = func.least(func.now() - _orders.c.created_at, func.make_interval(0, 0, 0, 0, 0, 0, REPEAT_SECONDS_MAX))
_ASK_AGAIN = _END.where(_overdue).values(repeat_at=func.now() + func.greatest(_deadline, _age))

_PAGE = (
    select(_orders)
    .where(
        _orders.c.user_id == bindparam("user_id"),
        _orders.c.feed_number < bindparam("before_feed_number"),
        or_(bindparam("status", type_=Text) == "", _orders.c.status == bindparam("status", type_=Text)),
        _orders.c.created_at > bindparam("created_after"),
        _orders.c.created_at < bindparam("created_before"),
    )
    .order_by(_orders.c.feed_number.desc())
    .limit(bindparam("limit"))
)


class Orders:
    """The orders table. Writers hold the lock of the orders' users."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def get(self, order_ids: Iterable[str]) -> dict[str, StoredOrder]:
        """Return the existing orders by id."""
        found = await self._session.run(_GET, order_ids=sorted(set(order_ids)))
        return {row.order_id: _stored(row) for row in found}

    async def by_key(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], StoredOrder]:
        """Return the orders made under (user id, idempotency key)."""
        if not keys:
            return {}
        found = await self._session.run(_BY_KEY, **array_parameters(("user_id", "idempotency_key"), keys))
        return {(row.user_id, row.idempotency_key): _stored(row) for row in found}

    async def add(self, orders: Sequence[NewOrder], deadline_seconds: int) -> dict[str, StoredOrder]:
        """Insert new orders, and return them by id."""
        given = [
            (
                order.order.order_id,
                order.order.user_id,
                order.feed_number,
                order.order.amount_minor,
                order.order.currency,
                order.description,
                order.items_json,
                order.idempotency_key,
                order.fingerprint,
            )
            for order in orders
        ]
        created = await self._session.run(
            _ADD, **array_parameters(list(_NEW_COLUMNS), given), deadline_seconds=deadline_seconds
        )
        return {row.order_id: _stored(row) for row in created}

    async def move(self, orders: Iterable[Order]) -> None:
        """Store the orders' status, reason and version."""
        given = [(order.order_id, order.status.value, order.reason, order.version) for order in orders]
        await self._session.run(_MOVE, **array_parameters(("order_id", "status", "reason", "version"), given))

    async def record(self, entries: Iterable[HistoryEntry]) -> None:
        """Append to the history. An order has one entry per version, a user one entry per feed number."""
        given = [
            (
                entry.order.user_id,
                entry.feed_number,
                entry.order.order_id,
                entry.order.version,
                entry.order.status.value,
                entry.order.reason,
            )
            for entry in entries
        ]
        await self._session.run(_RECORD, **array_parameters(list(_HISTORY_COLUMNS), given))

    async def overdue(self, limit: int) -> list[tuple[str, str]]:
        """Return (order id, user id) of overdue NEW orders, without locking them."""
        return [(row.order_id, row.user_id) for row in await self._session.run(_OVERDUE, limit=limit)]

    async def repeat_cancellation(
        self, order_ids: Sequence[str], again_after_seconds: int
    ) -> list[CancellationRequest]:
        """Record the cancellation request of overdue orders; the reason is ``timeout`` unless there is one.

        Return the orders. Their users are locked. An order is overdue again at twice its age, within
        ``again_after_seconds`` and ``REPEAT_SECONDS_MAX``.
        """
        return await self._end(_ASK_AGAIN, order_ids, "timeout", again_after_seconds)

    async def end(self, order_id: str, reason: str, again_after_seconds: int) -> list[CancellationRequest]:
        """Record a cancellation request and return the order, which is overdue until it is CANCELLED."""
        return await self._end(_END, [order_id], reason, again_after_seconds)

    async def _end(
        self, statement: ClauseElement, order_ids: Sequence[str], reason: str, again_after_seconds: int
    ) -> list[CancellationRequest]:
        found = await self._session.run(
            statement, order_ids=sorted(order_ids), reason=reason, deadline_seconds=again_after_seconds
        )
        return [CancellationRequest(row.order_id, row.user_id, row.cancellation_reason) for row in found]

    async def page(
        self,
        user_id: str,
        *,
        limit: int,
        before_feed_number: int,
        status: str,
        created_after: datetime,
        created_before: datetime,
    ) -> list[StoredOrder]:
        """Return a user's orders below a number, newest first."""
        found = await self._session.run(
            _PAGE,
            user_id=user_id,
            limit=limit,
            before_feed_number=before_feed_number,
            status=status,
            created_after=created_after,
            created_before=created_before,
        )
        return [_stored(row) for row in found]


def _stored(row: Any) -> StoredOrder:
    life = Order(
        row.order_id,
        row.user_id,
        row.amount_minor,
        row.currency,
        OrderStatus(row.status),
        row.reason,
        row.version,
    )
    return StoredOrder(
        life,
        row.feed_number,
        row.description,
        row.items,
        row.created_at,
        row.updated_at,
        row.repeat_at,
        row.idempotency_key,
        None if row.fingerprint is None else bytes(row.fingerprint),
    )
