"""`eshop orders`: what an operator does with orders."""

from typing import Annotated

import typer

from eshop.cli.operators import OperatorOption, ReasonOption, ShopOption, operator_name, target

app = typer.Typer(no_args_is_help=True, help="End orders without a charge. For operators.")


# With one command only, Typer would leave its name out.
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
    """End an order without a charge: one that is paid gets its money back, one that is NEW is not charged.

    Returns when it is asked for; the order's end follows. Harmless to repeat.

    Example: [bold]eshop orders refund 01a204a5-b233-764f-b8b2-3123bc7b4c5c --reason "broken lamp"[/]
    """
    from eshop.cli import calls  # noqa: PLC0415  only now: the launcher has no need of gRPC

    where = target("orders", data)
    reply = calls.refund_order(where, order_id, reason=reason, operator=operator_name(operator))
    order = reply.order
    if reply.asked:
        typer.echo(
            f"asked for the refund of {order.amount_minor} {order.currency} to {order.user_id}; "
            "the order becomes CANCELLED with reason refunded"
        )
    else:
        typer.echo(f"nothing was asked: the order is CANCELLED already, with reason {order.reason}")
