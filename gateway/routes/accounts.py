"""The user's account: opening and closing, balance, top-ups, statement."""

from aiohttp import web

from eshop.contracts.proto import orders_v1_pb2
from eshop.contracts.proto import payments_v1_pb2 as pb
from eshop.contracts.statuses import NEW
from gateway.app_keys import CACHED_READS, SETTINGS, UPSTREAM
from gateway.http.answers import AccountAnswer, TransfersAnswer
from gateway.http.api import Api, Call
from gateway.http.conditions import condition_of
from gateway.http.models import AccountFields, TopUpFields
from gateway.http.problems import Problem, refused
from gateway.http.queries import PageQuery, Query
from gateway.http.responses import BASE, created, keyless_context, no_content, page_answer, versioned
from gateway.http.views import account_view, transfer_view

api = Api("accounts")


@api.post(f"{BASE}/accounts", body=AccountFields, answers={201: AccountAnswer}, problems=["account-exists"])
async def open_account(call: Call[AccountFields, Query]) -> web.Response:
    """Open the user's only account: 201 with its Location; 409 if there is an account."""
    upstream = call.app[UPSTREAM]
    asked = pb.OpenAccountRequest(
        context=call.context(), currency=call.body.currency or call.app[SETTINGS].currency
    )
    result = await upstream.call("payments.OpenAccount", upstream.payments.OpenAccount, asked)
    return await _answer(call.app, result, {"Location": f"{BASE}/accounts/me"})


@api.get(
    f"{BASE}/accounts/me",
    answers={200: AccountAnswer, 304: None},
    problems=["no-account"],
    headers=["If-None-Match"],
)
async def get_account(call: Call[None, Query]) -> web.Response:
    """Show the balance: 200 with an ETag, 304, or 404."""
    condition = condition_of(call.request)
    return versioned(await call.app[CACHED_READS].account(call.user_id, condition.floor), condition)


@api.post(
    f"{BASE}/accounts/me/top-ups",
    body=TopUpFields,
    answers={201: AccountAnswer},
    problems=["no-account", "reference-used", "balance-too-large"],
)
async def top_up(call: Call[TopUpFields, Query]) -> web.Response:
    """Add money: 201 with the new balance."""
    upstream = call.app[UPSTREAM]
    asked = pb.TopUpRequest(
        context=call.context(),
        amount_minor=call.body.amount_minor,
        reference=call.body.reference or "",
    )
    result = await upstream.call("payments.TopUp", upstream.payments.TopUp, asked)
    return await _answer(call.app, result, {})


@api.delete(
    f"{BASE}/accounts/me",
    answers={204: None},
    problems=["no-account", "account-not-empty", "account-in-use"],
)
async def close_account(call: Call[None, Query]) -> web.Response:
    """Close the account: 204; 404 without an account; 409 with money in it or a NEW order.

    There is no Idempotency-Key: a repeated request gets 404, and the account is as it should be.
    """
    await _must_be_unused(call.app, call.user_id)
    upstream = call.app[UPSTREAM]
    asked = pb.CloseAccountRequest(context=keyless_context(call.request, call.user_id))
    account = _account(await upstream.call("payments.CloseAccount", upstream.payments.CloseAccount, asked))
    # The closing is the wallet's newest version, so no copy of the open account is shown here any more.
    # Another gateway may show a copy until its news arrives, at most for a copy's life.
    call.app[CACHED_READS].show_wallet(call.user_id, account.version)
    return no_content()


@api.get(
    f"{BASE}/accounts/me/transfers",
    query=PageQuery,
    answers={200: TransfersAnswer},
    problems=["bad-cursor", "no-account"],
)
async def list_transfers(call: Call[None, PageQuery]) -> web.Response:
    """List the transfers in the user's wallet, newest first, page by page. Never from the cache."""
    page, upstream = call.query, call.app[UPSTREAM]
    asked = pb.ListTransfersRequest(
        user_id=call.user_id, limit=page.limit, before_feed_number=page.before_feed_number
    )
    reply = await upstream.call("payments.ListTransfers", upstream.payments.ListTransfers, asked)
    for leg in reply.transfers[:1]:
        call.app[CACHED_READS].show_wallet(call.user_id, leg.version)
    return page_answer(call.request, [transfer_view(leg) for leg in reply.transfers], reply.next_feed_number)


async def _must_be_unused(app: web.Application, user_id: str) -> None:
    """Raise the 409 Problem if an order of the user waits for its payment.

    An order that is placed right after this check does no harm: payments decides it after the closing, and
    refuses an order at a closed account with no_account.
    """
    upstream = app[UPSTREAM]
    asked = orders_v1_pb2.ListOrdersRequest(user_id=user_id, limit=1, status=NEW)
    page = await upstream.call("orders.ListOrders", upstream.orders.ListOrders, asked)
    if page.orders:
        raise Problem("account-in-use")


async def _answer(app: web.Application, result: pb.AccountResult, headers: dict[str, str]) -> web.Response:
    account, reads = _account(result), app[CACHED_READS]
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
