"""`eshop orders`: operators' actions on orders."""

from typing import TYPE_CHECKING, Annotated

import typer

from eshop.cli.operators import OperatorOption, ReasonOption, ShopOption, operator_name, target

if TYPE_CHECKING:
    from eshop.contracts.proto.payments_v1_pb2 import RefundPaymentReply

app = typer.Typer(no_args_is_help=True, help="End orders without a charge. For operators.")


# With a single command, Typer would omit the command's name.
@app.callback()
def _group() -> None:
    pass


@app.command()
def refund(
    order_id: Annotated[str, typer.Argument(metavar="ORDER_ID", help="The order's.", show_default=False)],
    reason: ReasonOption,
    operator: OperatorOption = None,
    data: ShopOption = None,
) -> None:
    """Cancel an order without a charge: a paid order is refunded, a NEW order is not charged.

    Returns after the request; the order's new status follows. If the orders service has no such order, but
    payments has captured money for it, payments refunds the money at once. Safe to repeat.

    Example: [bold]eshop orders refund 01a204a5-b233-764f-b8b2-3123bc7b4c5c --reason "broken lamp"[/]
    """
    from eshop.cli.client import shop  # noqa: PLC0415  only now: the launcher has no need of gRPC
    from eshop.cli.client.call import Missing  # noqa: PLC0415

    by = operator_name(operator)
    try:
        reply = shop.refund_order(target("orders", data), order_id, reason=reason, operator=by)
    except Missing:
        payment = shop.refund_payment(target("payments", data), order_id, reason=reason, operator=by)
        typer.echo(_said_of_payment(payment))
        return
    order = reply.order
    if reply.asked:
        typer.echo(
            f"asked for the refund of {order.amount_minor} {order.currency} to {order.user_id}; "
            "the order becomes CANCELLED with reason refunded"
        )
    else:
        typer.echo(f"nothing was asked: the order is CANCELLED already, with reason {order.reason}")


def _said_of_payment(payment: "RefundPaymentReply") -> str:
    money = f"{payment.amount_minor} {payment.currency}"
    if payment.refunded:
        done = f"payments gave {money} back to {payment.user_id}"
    elif payment.status == "REFUNDED":
        done = f"nothing was done: payments gave {money} back to {payment.user_id} before"
    else:
        done = f"nothing was done: payments never took money of {payment.user_id} for it"
    return f"orders has no such order; {done}"
