"""The user's account: opening it, its balance, money from outside."""

from aiohttp import web

from eshop.contracts.proto import payments_v1_pb2 as pb
from gateway.bodies import read_object, validated
from gateway.identity import user_of
from gateway.keys import READS, SETTINGS, UPSTREAM
from gateway.models import AccountFields, TopUpFields
from gateway.problems import refused
from gateway.queries import condition_of
from gateway.routes.answers import BASE, context_of, created, idempotency_key, versioned
from gateway.views import account_view

routes = web.RouteTableDef()


@routes.post(f"{BASE}/accounts")
async def open_account(request: web.Request) -> web.Response:
    """Open the user's only account: 201 with its Location; 409 where there is one."""
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
    return versioned(await request.app[READS].account(user_id, condition.floor), condition)


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


async def _answer(request: web.Request, result: pb.AccountResult, headers: dict[str, str]) -> web.Response:
    if result.HasField("refusal"):
        raise refused(result.refusal.code, result.refusal.detail, replayed=result.replayed)
    account = result.account
    await request.app[READS].show_account(account)
    view = account_view(account.balance_minor, account.currency, account.version)
    return created(view, headers, replayed=result.replayed)
