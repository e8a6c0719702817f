"""Operators' calls of the services by gRPC, each with a deadline; errors become one sentence.

A command imports this module when it runs: the launcher does not need gRPC.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from google.protobuf.message import Message
from grpc import StatusCode, aio

from eshop.cli.operators import Target
from eshop.clients.channel import credentials, open_channel
from eshop.cluster.errors import ClusterError
from eshop.contracts.proto import orders_v1_pb2, orders_v1_pb2_grpc, payments_v1_pb2, payments_v1_pb2_grpc

CALL_SECONDS_MAX = 10.0

_Reply = TypeVar("_Reply")
_Method = Callable[[aio.Channel], Callable[..., Awaitable[_Reply]]]


class Missing(ClusterError):
    """The requested object does not exist."""


def show_account(target: Target, user_id: str) -> payments_v1_pb2.Account:
    """Return a user's account."""
    request = payments_v1_pb2.GetAccountRequest(user_id=user_id)
    return call(
        target,
        lambda channel: payments_v1_pb2_grpc.PaymentsStub(channel).GetAccount,
        request,
        missing=_no_account(user_id),
    )


def set_frozen(
    target: Target, user_id: str, *, frozen: bool, reason: str, operator: str
) -> payments_v1_pb2.Account:
    """Freeze or unfreeze a user's account; return the account."""
    request = payments_v1_pb2.SetFrozenRequest(
        user_id=user_id, frozen=frozen, reason=reason, operator=operator
    )
    result = call(target, lambda channel: payments_v1_pb2_grpc.PaymentsStub(channel).SetFrozen, request)
    if result.HasField("refusal"):
        refusal = result.refusal
        raise ClusterError(_no_account(user_id) if refusal.code == "no-account" else refusal.detail)
    return result.account


def refund_order(
    target: Target, order_id: str, *, reason: str, operator: str
) -> orders_v1_pb2.RefundOrderReply:
    """Request the cancellation of an order; return the order."""
    request = orders_v1_pb2.RefundOrderRequest(order_id=order_id, reason=reason, operator=operator)
    return call(
        target,
        lambda channel: orders_v1_pb2_grpc.OrdersStub(channel).RefundOrder,
        request,
        missing=f"there is no order {order_id}",
    )


def refund_payment(
    target: Target, order_id: str, *, reason: str, operator: str
) -> payments_v1_pb2.RefundPaymentReply:
    """Have payments refund its capture for an order that the orders service does not have."""
    request = payments_v1_pb2.RefundPaymentRequest(order_id=order_id, reason=reason, operator=operator)
    return call(
        target,
        lambda channel: payments_v1_pb2_grpc.PaymentsStub(channel).RefundPayment,
        request,
        missing=f"there is no order {order_id}",
    )


def call(target: Target, method: _Method[_Reply], request: Message, missing: str = "") -> _Reply:
    """Call once; ``missing`` is the text for NOT_FOUND. Raise Missing then, ClusterError for other errors."""
    return asyncio.run(ask(target, method, request, missing))


async def ask(target: Target, method: _Method[_Reply], request: Message, missing: str = "") -> _Reply:
    """Call once, as ``call`` does, among other things."""
    try:
        async with open_channel(target.addresses) as channel:
            return await method(channel)(
                request, timeout=CALL_SECONDS_MAX, metadata=credentials(target.token)
            )
    except aio.AioRpcError as error:
        kind = Missing if error.code() is StatusCode.NOT_FOUND else ClusterError
        raise kind(_sentence(target, error, missing)) from error


def _sentence(target: Target, error: aio.AioRpcError, missing: str) -> str:
    where = f"the {target.service} service at {target.addresses}"
    details = (error.details() or "").splitlines() or [""]
    match error.code():
        case StatusCode.NOT_FOUND if missing:
            return missing
        case StatusCode.INVALID_ARGUMENT:
            return details[0]
        case StatusCode.UNAUTHENTICATED:
            return f"{where} refuses the service token: set ESHOP_SERVICE_TOKEN to the shop's"
        case StatusCode.UNAVAILABLE:
            return f"{where} cannot be reached, or has no database: is the shop up? See `eshop status`"
        case StatusCode.DEADLINE_EXCEEDED:
            return f"{where} did not answer in {CALL_SECONDS_MAX:.0f} s: look before you ask again"
        case code:
            return f"{where} failed: {code.name}: {details[0]}"


def _no_account(user_id: str) -> str:
    return f"{user_id} has no account"
