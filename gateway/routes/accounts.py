"""The user's account: opening and closing, balance, top-ups, statement."""

from aiohttp import web

from eshop.contracts.proto import orders_v1_pb2
from eshop.contracts.proto import payments_v1_pb2 as pb
from eshop.contracts.statuses import NEW
from gateway.app_keys import CACHED_READS, SETTINGS, UPSTREAM
from gateway.http.bodies import must_be_empty, read_object, validated
from gateway.http.identity import user_of
from gateway.http.models import AccountFields, TopUpFields
from gateway.http.problems import Problem, refused
from gateway.http.queries import condition_of, page_query
from gateway.http.responses import (
    BASE,
    context_of,
    created,
    idempotency_key,
    keyless_context,
    no_content,
    page_answer,
    versioned,
)
from gateway.http.views import account_view, transfer_view

routes = web.RouteTableDef()


@routes.post(f"{BASE}/accounts")
async def open_account(request: web.Request) -> web.Response:
    """Open the user's only account: 201 with its Location; 409 if there is an account."""
    user_id = user_of(request)
    idempotency_key(request)
    body = await read_object(request)
    fields = validated(AccountFields, body)
    upstream = request.app[UPSTREAM]
    asked = pb.OpenAccountRequest(
        context=context_of(request, user_id, body),
        currency=fields.currency or request.app[SETTINGS].currency,
    )
    result = await upstream.call("payments.OpenAccount", upstream.payments.OpenAccount, asked)
    return await _answer(request, result, {"Location": f"{BASE}/accounts/me"})


@routes.get(f"{BASE}/accounts/me")
async def get_account(request: web.Request) -> web.Response:
    """Show the balance: 200 with an ETag, 304, or 404."""
    user_id = user_of(request)
    condition = condition_of(request)
    return versioned(await request.app[CACHED_READS].account(user_id, condition.floor), condition)


@routes.post(f"{BASE}/accounts/me/top-ups")
async def top_up(request: web.Request) -> web.Response:
    """Add money: 201 with the new balance."""
    user_id = user_of(request)
    idempotency_key(request)
    body = await read_object(request)
    fields = validated(TopUpFields, body)
    upstream = request.app[UPSTREAM]
    asked = pb.TopUpRequest(
        context=context_of(request, user_id, body),
        amount_minor=fields.amount_minor,
        reference=fields.reference or "",
    )
    result = await upstream.call("payments.TopUp", upstream.payments.TopUp, asked)
    return await _answer(request, result, {})


@routes.delete(f"{BASE}/accounts/me")
async def close_account(request: web.Request) -> web.Response:
    """Close the account: 204; 404 without an account; 409 with money in it or a NEW order.

    There is no Idempotency-Key: a repeated request gets 404, and the account is as it should be.
    """
    user_id = user_of(request)
    await must_be_empty(request)
    await _must_be_unused(request, user_id)
    upstream = request.app[UPSTREAM]
    asked = pb.CloseAccountRequest(context=keyless_context(request, user_id))
    account = _account(await upstream.call("payments.CloseAccount", upstream.payments.CloseAccount, asked))
    # The closing is the wallet's newest version, so no copy of the open account is shown here any more.
    # Another gateway may show a copy until its news arrives, at most for a copy's life.
    request.app[CACHED_READS].show_wallet(user_id, account.version)
    return no_content()


@routes.get(f"{BASE}/accounts/me/transfers")
async def list_transfers(request: web.Request) -> web.Response:
    """List the transfers in the user's wallet, newest first, page by page. Never from the cache."""
    user_id = user_of(request)
    page = page_query(request)
    upstream = request.app[UPSTREAM]
    asked = pb.ListTransfersRequest(
        user_id=user_id, limit=page.limit, before_feed_number=page.before_feed_number
    )
    reply = await upstream.call("payments.ListTransfers", upstream.payments.ListTransfers, asked)
    for leg in reply.transfers[:1]:
        request.app[CACHED_READS].show_wallet(user_id, leg.version)
    return page_answer(request, [transfer_view(leg) for leg in reply.transfers], reply.next_feed_number)


async def _must_be_unused(request: web.Request, user_id: str) -> None:
    """Raise the 409 Problem if an order of the user waits for its payment.

    An order that is placed right after this check does no harm: payments decides it after the closing, and
    refuses an order at a closed account with no_account.
    """
    upstream = request.app[UPSTREAM]
    asked = orders_v1_pb2.ListOrdersRequest(user_id=user_id, limit=1, status=NEW)
    page = await upstream.call("orders.ListOrders", upstream.orders.ListOrders, asked)
    if page.orders:
        raise Problem("account-in-use")


async def _answer(request: web.Request, result: pb.AccountResult, headers: dict[str, str]) -> web.Response:
    account, reads = _account(result), request.app[CACHED_READS]
    if result.replayed:
        # As at the first time: right for then, and not offered to later readers.
        reads.show_wallet(account.user_id, account.version)
    else:
        await reads.show_account(account)
    return created(account_view(account), headers, replayed=result.replayed)


def _account(result: pb.AccountResult) -> pb.Account:
    """Return the account; raise the Problem of a refusal."""
    if result.HasField("refusal"):
        raise refused(result.refusal.code, result.refusal.detail, replayed=result.replayed)
    return result.account
