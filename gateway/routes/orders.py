"""Orders: placing, looking, listing, cancelling."""

import re

from aiohttp import web

from eshop.contracts.proto import orders_v1_pb2 as pb
from eshop.contracts.statuses import CANCELLED, NEW
from gateway.app_keys import CACHED_READS, ORDER_BATCHER, ORDER_WAITER, SETTINGS, UPSTREAM
from gateway.cache import Reading
from gateway.http.bodies import must_be_empty, read_object, validated
from gateway.http.identity import user_of
from gateway.http.models import OrderFields
from gateway.http.problems import Problem, refused
from gateway.http.queries import condition_of, order_filter, page_query, wait_preferred, wait_query
from gateway.http.responses import (
    BASE,
    context_of,
    created,
    idempotency_key,
    json_response,
    page_answer,
    versioned,
)
from gateway.http.views import fresh_order, order_view

routes = web.RouteTableDef()

_ORDER_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@routes.post(f"{BASE}/orders")
async def place_order(request: web.Request) -> web.Response:
    """Place an order: 201 and NEW; with ``Prefer: wait=N`` the outcome, or 202 if it takes longer."""
    user_id = user_of(request)
    idempotency_key(request)
    body = await read_object(request)
    asked = _create_order(request, user_id, validated(OrderFields, body), body)
    result = await request.app[ORDER_BATCHER].create(asked)
    if result.HasField("refusal"):
        raise refused(result.refusal.code, result.refusal.detail, replayed=result.replayed)
    order, status = result.order, 201
    headers = {"Location": f"{BASE}/orders/{order.order_id}"}
    if seconds := wait_preferred(request):
        headers["Preference-Applied"] = f"wait={seconds}"
        made = None if result.replayed else order
        order = await _outcome(request, user_id, order.order_id, seconds, made=made)
        status = 202 if order.status == NEW else 201
    request.app[CACHED_READS].show_order(order)
    return created(order_view(order), headers, replayed=result.replayed, status=status)


@routes.get(f"{BASE}/orders/{{order_id}}")
async def get_order(request: web.Request) -> web.Response:
    """Show an order: 200 with an ETag, 304, or 404. ``?wait=N`` waits for its outcome first."""
    user_id = user_of(request)
    order_id = _order_id(request)
    condition = condition_of(request)
    if seconds := wait_query(request):
        order = await _outcome(request, user_id, order_id, seconds, floor=condition.floor)
        request.app[CACHED_READS].show_order(order)
        fresh = fresh_order(order)
        return versioned(Reading(fresh.version, fresh.body, age_seconds=None), condition)
    return versioned(await request.app[CACHED_READS].order(user_id, order_id, condition.floor), condition)


@routes.get(f"{BASE}/orders")
async def list_orders(request: web.Request) -> web.Response:
    """List the user's orders, newest first, page by page. Never from the cache."""
    user_id = user_of(request)
    asked = _list_orders(request, user_id)
    upstream = request.app[UPSTREAM]
    reads = request.app[CACHED_READS]
    page = await upstream.call("orders.ListOrders", upstream.orders.ListOrders, asked)
    if any(order.version < reads.shown_version(user_id, order.order_id) for order in page.orders):
        # The user was shown a newer version during the read: a read that begins now returns it, too.
        page = await upstream.call("orders.ListOrders", upstream.orders.ListOrders, asked)
    for order in page.orders:
        reads.show_order(order)
    return page_answer(request, [order_view(order) for order in page.orders], page.next_feed_number)


@routes.get(f"{BASE}/orders/{{order_id}}/events")
async def order_events(request: web.Request) -> web.Response:
    """Show the steps of an order, in order of time, with the milliseconds between."""
    user_id = user_of(request)
    order_id = _order_id(request)
    await request.app[CACHED_READS].order_now(user_id, order_id)  # or 404: nobody sees another's
    timeline = await request.app[UPSTREAM].timeline(order_id)
    if timeline is None:
        raise Problem("not-found")
    return json_response(timeline.as_json(with_internal=False))


@routes.post(f"{BASE}/orders/{{order_id}}/cancel")
async def cancel_order(request: web.Request) -> web.Response:
    """Request a cancellation: 202, the outcome comes by the feed; 200 for a cancelled order."""
    user_id = user_of(request)
    idempotency_key(request)
    order_id = _order_id(request)
    await must_be_empty(request)
    upstream = request.app[UPSTREAM]
    asked = pb.CancelOrderRequest(context=context_of(request, user_id, {}), order_id=order_id)
    reply = await upstream.call("orders.CancelOrder", upstream.orders.CancelOrder, asked)
    if reply.HasField("refusal"):
        raise refused(reply.refusal.code, reply.refusal.detail)
    order = reply.order if reply.replayed else await request.app[CACHED_READS].not_older(reply.order)
    request.app[CACHED_READS].show_order(order)
    status = 200 if order.status == CANCELLED else 202
    return created(order_view(order), {}, replayed=reply.replayed, status=status)


async def _outcome(
    request: web.Request,
    user_id: str,
    order_id: str,
    seconds: int,
    *,
    floor: int = 0,
    made: pb.Order | None = None,
) -> pb.Order:
    """Wait for the order's outcome; ``floor`` is the reader's version."""
    reads = request.app[CACHED_READS]
    return await request.app[ORDER_WAITER].outcome(
        order_id,
        seconds,
        lambda: reads.order_now(user_id, order_id),
        lambda: max(floor, reads.shown_version(user_id, order_id)),
        made,
    )


def _order_id(request: web.Request) -> str:
    """Return the id in the path; raise the 404 Problem of an unknown order if it is malformed."""
    order_id = request.match_info["order_id"]
    if not _ORDER_ID.fullmatch(order_id):
        raise Problem("not-found")
    return order_id


def _create_order(request: web.Request, user_id: str, fields: OrderFields, body: object) -> pb.CreateOrder:
    return pb.CreateOrder(
        context=context_of(request, user_id, body),
        amount_minor=fields.amount_minor,
        currency=fields.currency or request.app[SETTINGS].currency,
        description=fields.description or "",
        items=[pb.Item(**item.model_dump()) for item in fields.items],
    )


def _list_orders(request: web.Request, user_id: str) -> pb.ListOrdersRequest:
    page, wanted = page_query(request), order_filter(request)
    asked = pb.ListOrdersRequest(
        user_id=user_id, limit=page.limit, before_feed_number=page.before_feed_number, status=wanted.status
    )
    if wanted.created_after is not None:
        asked.created_after.FromDatetime(wanted.created_after)
    if wanted.created_before is not None:
        asked.created_before.FromDatetime(wanted.created_before)
    return asked
