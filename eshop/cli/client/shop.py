"""Calls of the orders and payments services."""

from eshop.cli.client.call import call
from eshop.cli.operators import Target
from eshop.cluster.errors import ClusterError
from eshop.contracts.proto import orders_v1_pb2, orders_v1_pb2_grpc, payments_v1_pb2, payments_v1_pb2_grpc


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


def _no_account(user_id: str) -> str:
    return f"{user_id} has no account"
