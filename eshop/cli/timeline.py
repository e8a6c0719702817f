"""`eshop timeline`: the steps of an order in all services, and the time between them."""

import json
from typing import Annotated, Any

import typer

from eshop.cli.console import console
from eshop.cli.operators import ShopOption, target
from eshop.cluster.errors import ClusterError
from eshop.contracts.services import SERVICES


def timeline(
    order_id: Annotated[str, typer.Argument(metavar="ORDER_ID", help="The order's.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    data: ShopOption = None,
) -> None:
    """Show the steps of an order, in order of time, with the milliseconds between.

    Request, messages in the outbox and their places on topics, their receipt by the other services and
    dropped redeliveries, decision and postings, feed numbers, dead letters, and operators' actions. Times are
    those of the services' databases. Deletions by retention are noted.

    --json prints {"order_id", "user_id", "steps": [{"at", "after_ms", "service", "what", …}], "removed":
    [{"service", "table", "before"}], "waiting": [{"service", "message_id", "type"}]}.

    Example: [bold]eshop timeline 01a204a5-b233-764f-b8b2-3123bc7b4c5c[/]
    """
    from eshop.cli.client import timeline  # noqa: PLC0415  only now: the launcher has no need of gRPC

    found = timeline.read(order_id, [target(service, data) for service in SERVICES])
    if found is None:
        raise ClusterError(f"there is no order {order_id}")
    told = found.as_json(with_internal=True)
    if as_json:
        typer.echo(json.dumps(told))
    else:
        _print(told)


def _print(told: dict[str, Any]) -> None:
    console.print(f"order {told['order_id']} of {told['user_id']}", markup=False, soft_wrap=True)
    console.print(f"{'at (UTC)':<26} {'ms':>10} {'service':<8} {'what':<9}", style="bold", soft_wrap=True)
    for step in told["steps"]:
        at = step["at"].replace("T", " ").removesuffix("Z")
        line = f"{at} {step['after_ms']:>10,.1f} {step['service']:<8} {step['what']:<9} {_details(step)}"
        console.print(line, markup=False, soft_wrap=True)
    for message in told["waiting"]:
        console.print(
            f"{message['service']} has not received {_short(message['type'])} {message['message_id']}",
            markup=False,
            soft_wrap=True,
        )
    for gone in told["removed"]:
        console.print(
            f"{gone['service']}: messages from before {gone['before'][:19]} are removed from the "
            f"{gone['table']}, so their steps are missing",
            markup=False,
            soft_wrap=True,
        )


def _details(step: dict[str, Any]) -> str:
    match step["what"]:
        case "requested" | "changed" | "decided":
            words = [step["status"], step["reason"], _amount(step), _feed("orders", step)]
        case "posted":
            words = [step["kind"], step["account"], _amount(step), _feed("wallet", step)]
        case "appended":
            words = [_short(step["type"]), step["message_id"]]
        case "published" | "received":
            place = f"{step['topic']}/{step['partition']}@{step['offset']}"
            words = [_short(step["type"]), "to" if step["what"] == "published" else "from", place]
        case "dropped":
            words = [_short(step["type"]), "came again, the last of", str(step["times"]), "times"]
        case "parked":
            words = [_short(step["type"]), f"as dead letter {step['dead_letter_id']}:", step["cause"]]
        case _:
            words = [f"by {step['operator']}:", step["reason"]]
    return " ".join(word for word in words if word)


def _amount(step: dict[str, Any]) -> str:
    return f"{step['amount_minor']} {step['currency']}" if "amount_minor" in step else ""


def _feed(stream: str, step: dict[str, Any]) -> str:
    balance = f"balance {step['balance_minor']}, " if "balance_minor" in step else ""
    return f"({balance}feed {stream} {step['feed_number']})" if "feed_number" in step else ""


def _short(type_: str | None) -> str:
    """Return a message's type without its source, or the id if only the id is known."""
    return (type_ or "a message").rpartition(".")[2]
