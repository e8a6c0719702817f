"""`eshop accounts`: operators' actions on accounts."""

from typing import Annotated

import typer

from eshop.cli.operators import OperatorOption, ReasonOption, ShopOption, operator_name, target

app = typer.Typer(no_args_is_help=True, help="Look at users' accounts, and freeze them. For operators.")

UserArgument = Annotated[str, typer.Argument(metavar="USER", help="The account's owner.", show_default=False)]


@app.command()
def show(user: UserArgument, data: ShopOption = None) -> None:
    """Show a user's account as it is now.

    Example: [bold]eshop accounts show alice[/]
    """
    from eshop.cli.client import shop  # noqa: PLC0415  only now: the launcher has no need of gRPC

    account = shop.show_account(target("payments", data), user)
    frozen = ", frozen" if account.frozen else ""
    typer.echo(f"{user}: {account.balance_minor} {account.currency}, version {account.version}{frozen}")


@app.command()
def freeze(
    user: UserArgument, reason: ReasonOption, operator: OperatorOption = None, data: ShopOption = None
) -> None:
    """Refuse a user's new orders. Paid orders stay paid; top-ups and refunds still come in.

    Safe to repeat.

    Example: [bold]eshop accounts freeze alice --reason "stolen card"[/]
    """
    _set_frozen(user, reason, operator, data, frozen=True)
    typer.echo(
        f"{user}'s account is frozen; new orders become CANCELLED with reason account_frozen until "
        "`eshop accounts unfreeze`"
    )


@app.command()
def unfreeze(
    user: UserArgument, reason: ReasonOption, operator: OperatorOption = None, data: ShopOption = None
) -> None:
    """Accept a user's new orders again. Refused orders stay refused.

    Safe to repeat.

    Example: [bold]eshop accounts unfreeze alice --reason "the card was found"[/]
    """
    _set_frozen(user, reason, operator, data, frozen=False)
    typer.echo(f"{user}'s account is not frozen; new orders are paid from it")


def _set_frozen(user: str, reason: str, operator: str | None, data: ShopOption, *, frozen: bool) -> None:
    from eshop.cli.client import shop  # noqa: PLC0415  only now: the launcher has no need of gRPC

    where = target("payments", data)
    shop.set_frozen(where, user, frozen=frozen, reason=reason, operator=operator_name(operator))
