"""The Orders service over gRPC."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import grpc
import orjson
import psycopg2
import uuid_utils
from grpc import aio

from eshop.contracts.limits import DESCRIPTION_CHARACTERS_MAX, PAGE_MAX, QUANTITY_MAX
from eshop.contracts.proto import orders_v1_pb2 as pb
from eshop.contracts.proto import shared_v1_pb2 as shared
from eshop.contracts.proto.orders_v1_pb2_grpc import OrdersServicer as Base
from eshop.domain.money import AMOUNT_MINOR_MAX
from eshop.domain.order import OrderStatus
from eshop.domain.refusal import Refusal
from eshop.handlers.announce import Cause
from eshop.handlers.orders import Placed, PlaceOrder, place_orders, request_cancellation, request_refund
from eshop.rpc import convert
from eshop.rpc.convert import bounded, check_context, check_text, check_user, uuid_text
from eshop.rpc.feed import feed_heads, read_feed
from eshop.rpc.server import InvalidRequest
from eshop.store.faults import LockTimeout, is_poison
from eshop.store.orders import StoredOrder
from eshop.store.unit_of_work import OrdersUnitOfWork, Store

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["Orders"].full_name

ORDERS_MAX = 1_000
ITEMS_BYTES_MAX = 48 * 1024
#: Concurrent transactions that place orders. The connections for requests have room left for reads.
CREATES_MAX = 2
_ALWAYS = (datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC))
#: How long a call for many users waits for a locked row. A call for one user waits longer.
BATCH_LOCK_MS_MAX = 1_000
_IN_PROGRESS = Refusal("idempotency-in-progress", "another request of the user is still running")
_UNSTORABLE = Refusal("invalid-order", "the order can't be stored")

Context = aio.ServicerContext[Any, Any]


class OrdersServicer(Base):
    """Answers for the orders database."""

    def __init__(self, store: Store[OrdersUnitOfWork], deadline_seconds: int) -> None:
        self._store = store
        self._deadline_seconds = deadline_seconds
        self._creates = asyncio.Semaphore(CREATES_MAX)

    async def CreateOrders(self, request: pb.CreateOrdersRequest, context: Context) -> pb.CreateOrdersReply:  # noqa: N802
        """Place the orders; a bad order is refused by itself."""
        if len(request.orders) > ORDERS_MAX:
            raise InvalidRequest(f"at most {ORDERS_MAX} orders a call")
        asked = [_place_order(order) for order in request.orders]
        valid = [order for order in asked if isinstance(order, PlaceOrder)]
        async with self._creates:
            answers = iter(await self._place(valid, patient=_are_one_users(valid)) if valid else ())
        return pb.CreateOrdersReply(
            results=[_result(order if isinstance(order, Refusal) else next(answers)) for order in asked]
        )

    async def _place(self, orders: Sequence[PlaceOrder], *, patient: bool = False) -> list[Placed | Refusal]:
        """Place all orders in one transaction. If one makes it fail, refuse only that order."""

        async def place(uow: OrdersUnitOfWork) -> list[Placed | Refusal]:
            if not patient:
                await uow.session.bound_lock_wait(BATCH_LOCK_MS_MAX)
            return await place_orders(uow, orders, self._deadline_seconds)

        try:
            return await self._store.transact(place)
        except LockTimeout:
            if _are_one_users(orders):
                return [_IN_PROGRESS] * len(orders)
            return await self._place_around_locked(orders)
        except psycopg2.Error as error:
            if not is_poison(error):
                raise
            if len(orders) == 1:
                return [_UNSTORABLE]
        return await self._place_halves(orders)

    async def _place_around_locked(self, orders: Sequence[PlaceOrder]) -> list[Placed | Refusal]:
        """Refuse the users whose rows are locked, and place the orders of the others without waiting."""
        locked = await self._store.read(lambda uow: uow.users.locked(order.user_id for order in orders))
        if not locked:
            return await self._place_halves(orders)
        free = [order for order in orders if order.user_id not in locked]
        placed = iter(await self._place(free) if free else ())
        return [_IN_PROGRESS if order.user_id in locked else next(placed) for order in orders]

    async def _place_halves(self, orders: Sequence[PlaceOrder]) -> list[Placed | Refusal]:
        middle = len(orders) // 2
        halves = (orders[:middle], orders[middle:])
        return [answer for half in halves for answer in await self._place(half)]

    async def GetOrder(self, request: pb.GetOrderRequest, context: Context) -> pb.Order:  # noqa: N802
        """Return the user's order."""
        order_id = uuid_text(request.order_id)
        found = await self._store.read(lambda uow: uow.orders.get([order_id])) if order_id else {}
        order = found.get(order_id or "")
        if order is None or order.order.user_id != request.user_id:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such order")
        return _order(order)

    async def ListOrders(self, request: pb.ListOrdersRequest, context: Context) -> pb.ListOrdersReply:  # noqa: N802
        """Return a page of the user's orders."""
        check_user(request.user_id)
        limit = bounded(request.limit, PAGE_MAX)
        after, before = _ALWAYS
        if request.HasField("created_after"):
            after = convert.moment(request.created_after)
        if request.HasField("created_before"):
            before = convert.moment(request.created_before)
        found = await self._store.read(
            lambda uow: uow.orders.page(
                request.user_id,
                limit=limit + 1,
                before_feed_number=request.before_feed_number or convert.NUMBER_MAX,
                status=_status(request.status),
                created_after=after,
                created_before=before,
            )
        )
        page = found[:limit]
        return pb.ListOrdersReply(
            orders=[_order(order) for order in page],
            next_feed_number=page[-1].feed_number if len(found) > limit else 0,
        )

    async def CancelOrder(self, request: pb.CancelOrderRequest, context: Context) -> pb.CancelOrderReply:  # noqa: N802
        """Request the cancellation of an order."""
        check_context(request.context)
        order_id = uuid_text(request.order_id)
        cause = convert.cause_of(request.context, str(uuid_utils.uuid7()))
        result = None
        if order_id is not None:
            result = await self._store.transact(
                partial(
                    request_cancellation,
                    user_id=request.context.user_id,
                    order_id=order_id,
                    cause=cause,
                    idempotency_key=request.context.idempotency_key or None,
                    fingerprint=request.context.fingerprint,
                )
            )
        if result is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such order")
        if isinstance(result.outcome, Refusal):
            return pb.CancelOrderReply(refusal=convert.refusal(result.outcome))
        return pb.CancelOrderReply(order=_order(result.outcome), replayed=result.replayed)

    async def RefundOrder(self, request: pb.RefundOrderRequest, context: Context) -> pb.RefundOrderReply:  # noqa: N802
        """Request the cancellation of an order, for an operator."""
        order_id = uuid_text(request.order_id)
        reason, operator = convert.check_operator(request)
        request_id = str(uuid_utils.uuid7())
        cause = Cause(correlation_id=request_id, causation_id=request_id)
        result = None
        if order_id is not None:
            result = await self._store.transact(
                lambda uow: request_refund(uow, order_id, reason=reason, operator=operator, cause=cause)
            )
        if result is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such order")
        return pb.RefundOrderReply(order=_order(result[0]), asked=result[1])

    async def ReadFeed(self, request: shared.ReadFeedRequest, context: Context) -> pb.ReadFeedReply:  # noqa: N802
        """Return the changes of the user after a feed number."""
        history, head_feed_number = await read_feed(self._store, request, lambda uow: uow.feed)
        frames = [
            pb.OrderFrame(
                feed_number=row.feed_number,
                order_id=row.order_id,
                status=row.status,
                reason=row.reason or "",
                version=row.version,
                at=convert.timestamp(row.at),
            )
            for row in history
        ]
        return pb.ReadFeedReply(frames=frames, head_feed_number=head_feed_number)

    async def FeedHeads(self, request: shared.FeedHeadsRequest, context: Context) -> shared.FeedHeadsReply:  # noqa: N802
        """Return the users' last numbers."""
        return await feed_heads(self._store, request)


def _are_one_users(orders: Sequence[PlaceOrder]) -> bool:
    return len({order.user_id for order in orders}) == 1


def _place_order(order: pb.CreateOrder) -> PlaceOrder | Refusal:
    context = order.context
    try:
        check_context(context)
        order_id = str(uuid_utils.uuid7())
        return PlaceOrder(
            order_id=order_id,
            user_id=context.user_id,
            amount_minor=convert.check_amount(order.amount_minor),
            currency=convert.check_currency(order.currency),
            description=check_text("description", order.description, DESCRIPTION_CHARACTERS_MAX),
            items_json=_items(order),
            idempotency_key=context.idempotency_key or None,
            fingerprint=context.fingerprint if context.idempotency_key else None,
            cause=convert.cause_of(context, order_id),
        )
    except InvalidRequest as error:
        return Refusal("invalid-order", str(error))


def _items(order: pb.CreateOrder) -> str:
    total = sum(item.quantity * item.unit_price_minor for item in order.items)
    if order.items and total != order.amount_minor:
        raise InvalidRequest("the items do not sum to amount_minor")
    items = orjson.dumps([_item(item) for item in order.items])
    if len(items) > ITEMS_BYTES_MAX:
        raise InvalidRequest(f"the items take more than {ITEMS_BYTES_MAX} bytes")
    return items.decode()


def _item(item: pb.Item) -> dict[str, str | int]:
    if not (0 < item.quantity <= QUANTITY_MAX and 0 <= item.unit_price_minor <= AMOUNT_MINOR_MAX):
        raise InvalidRequest("an item's quantity or price is out of bounds")
    return {
        "sku": check_text("an item's sku", item.sku, ITEMS_BYTES_MAX),
        "name": check_text("an item's name", item.name, ITEMS_BYTES_MAX),
        "quantity": item.quantity,
        "unit_price_minor": item.unit_price_minor,
    }


def _status(text: str) -> str:
    if text and text not in [status.value for status in OrderStatus]:
        raise InvalidRequest("there is no such status")
    return text


def _result(answer: Placed | Refusal) -> pb.CreateOrderResult:
    if isinstance(answer, Refusal):
        return pb.CreateOrderResult(refusal=convert.refusal(answer))
    return pb.CreateOrderResult(order=_order(answer.order), replayed=answer.replayed)


def _order(order: StoredOrder) -> pb.Order:
    return pb.Order(
        order_id=order.order.order_id,
        user_id=order.order.user_id,
        status=order.order.status.value,
        reason=order.order.reason or "",
        amount_minor=order.order.amount_minor,
        currency=order.order.currency,
        description=order.description,
        version=order.order.version,
        created_at=convert.timestamp(order.created_at),
        updated_at=convert.timestamp(order.updated_at),
        items=[_stored_item(item) for item in order.items],
    )


def _stored_item(item: dict[str, Any]) -> pb.Item:
    """Return an item as it was stored, also by a newer version: unknown names are dropped."""
    return pb.Item(**{name: item[name] for name in pb.Item.DESCRIPTOR.fields_by_name if name in item})
