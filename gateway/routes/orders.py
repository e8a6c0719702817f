"""Orders: placing, looking, listing, cancelling."""

from typing import Any

from aiohttp import web

from eshop.contracts.proto import orders_v1_pb2 as pb
from eshop.contracts.statuses import CANCELLED, NEW
from gateway.app_keys import CACHED_READS, ORDER_BATCHER, ORDER_WAITER, SETTINGS, UPSTREAM
from gateway.cache import Reading
from gateway.http.answers import OrderAnswer, OrdersAnswer, TimelineAnswer
from gateway.http.api import Api, Call
from gateway.http.conditions import condition_of, wait_preferred
from gateway.http.models import OrderFields
from gateway.http.problems import Problem, refused
from gateway.http.queries import OrderQuery, OrdersQuery, Query
from gateway.http.responses import BASE, created, json_response, page_answer, versioned
from gateway.http.views import fresh_order, order_view

api = Api("orders")


@api.post(
    f"{BASE}/orders",
    body=OrderFields,
    answers={201: OrderAnswer, 202: OrderAnswer},
    problems=["invalid-order"],
    headers=["Prefer"],
)
async def place_order(call: Call[OrderFields, Query]) -> web.Response:
    """Place an order: 201 and NEW; with ``Prefer: wait=N`` the outcome, or 202 if it takes longer."""
    result = await call.app[ORDER_BATCHER].create(_create_order(call))
    if result.HasField("refusal"):
        raise refused(result.refusal.code, result.refusal.detail, replayed=result.replayed)
    order, status = result.order, 201
    headers = {"Location": f"{BASE}/orders/{order.order_id}"}
    if seconds := wait_preferred(call.request):
        headers["Preference-Applied"] = f"wait={seconds}"
        made = None if result.replayed else order
        order = await _outcome(call, order.order_id, seconds, made=made)
        status = 202 if order.status == NEW else 201
    call.app[CACHED_READS].show_order(order)
    return created(order_view(order), headers, replayed=result.replayed, status=status)


@api.get(
    f"{BASE}/orders/{{order_id}}",
    query=OrderQuery,
    answers={200: OrderAnswer, 304: None},
    headers=["If-None-Match"],
)
async def get_order(call: Call[None, OrderQuery]) -> web.Response:
    """Show an order: 200 with an ETag, 304, or 404. ``?wait=N`` waits for its outcome first."""
    order_id, condition, reads = call.path["order_id"], condition_of(call.request), call.app[CACHED_READS]
    if seconds := call.query.wait:
        order = await _outcome(call, order_id, seconds, floor=condition.floor)
        reads.show_order(order)
        fresh = fresh_order(order)
        return versioned(Reading(fresh.version, fresh.body, age_seconds=None), condition)
    return versioned(await reads.order(call.user_id, order_id, condition.floor), condition)


@api.get(f"{BASE}/orders", query=OrdersQuery, answers={200: OrdersAnswer}, problems=["bad-cursor"])
async def list_orders(call: Call[None, OrdersQuery]) -> web.Response:
    """List the user's orders, newest first, page by page. Never from the cache."""
    asked, upstream, reads = _list_orders(call), call.app[UPSTREAM], call.app[CACHED_READS]
    page = await upstream.call("orders.ListOrders", upstream.orders.ListOrders, asked)
    if any(order.version < reads.shown_version(call.user_id, order.order_id) for order in page.orders):
        # The user was shown a newer version during the read: a read that begins now returns it, too.
        page = await upstream.call("orders.ListOrders", upstream.orders.ListOrders, asked)
    for order in page.orders:
        reads.show_order(order)
    return page_answer(call.request, [order_view(order) for order in page.orders], page.next_feed_number)


@api.get(f"{BASE}/orders/{{order_id}}/events", answers={200: TimelineAnswer})
async def order_events(call: Call[None, Query]) -> web.Response:
    """Show the steps of an order, in order of time, with the milliseconds between."""
    order_id = call.path["order_id"]
    await call.app[CACHED_READS].order_now(call.user_id, order_id)  # or 404: nobody sees another's
    timeline = await call.app[UPSTREAM].timeline(order_id)
    if timeline is None:
        raise Problem("not-found")
    return json_response(timeline.as_json(with_internal=False))


@api.post(f"{BASE}/orders/{{order_id}}/cancel", answers={200: OrderAnswer, 202: OrderAnswer})
async def cancel_order(call: Call[None, Query]) -> web.Response:
    """Request a cancellation: 202, the outcome comes by the feed; 200 for a cancelled order."""
    upstream, reads = call.app[UPSTREAM], call.app[CACHED_READS]
    asked = pb.CancelOrderRequest(context=call.context(), order_id=call.path["order_id"])
    reply = await upstream.call("orders.CancelOrder", upstream.orders.CancelOrder, asked)
    if reply.HasField("refusal"):
        raise refused(reply.refusal.code, reply.refusal.detail)
    order = reply.order if reply.replayed else await reads.not_older(reply.order)
    reads.show_order(order)
    status = 200 if order.status == CANCELLED else 202
    return created(order_view(order), {}, replayed=reply.replayed, status=status)


async def _outcome(
    call: Call[Any, Any], order_id: str, seconds: int, *, floor: int = 0, made: pb.Order | None = None
) -> pb.Order:
    """Wait for the order's outcome; ``floor`` is the reader's version."""
    reads = call.app[CACHED_READS]
    return await call.app[ORDER_WAITER].outcome(
        order_id,
        seconds,
        lambda: reads.order_now(call.user_id, order_id),
        lambda: max(floor, reads.shown_version(call.user_id, order_id)),
        made,
    )


def _create_order(call: Call[OrderFields, Query]) -> pb.CreateOrder:
    fields = call.body
    return pb.CreateOrder(
        context=call.context(),
        amount_minor=fields.amount_minor,
        currency=fields.currency or call.app[SETTINGS].currency,
        description=fields.description or "",
        items=[pb.Item(**item.model_dump()) for item in fields.items],
    )


def _list_orders(call: Call[None, OrdersQuery]) -> pb.ListOrdersRequest:
    query = call.query
    asked = pb.ListOrdersRequest(
        user_id=call.user_id,
        limit=query.limit,
        before_feed_number=query.before_feed_number,
        status=query.status or "",
    )
    if query.created_after is not None:
        asked.created_after.FromDatetime(query.created_after)
    if query.created_before is not None:
        asked.created_before.FromDatetime(query.created_before)
    return asked
