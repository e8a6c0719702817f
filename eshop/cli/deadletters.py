"""`eshop deadletters`: dead letters of the services, and operators' actions on them."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer
from rich.table import Table

from eshop.cli.console import console, errors
from eshop.cli.operators import (
    OperatorOption,
    ReasonOption,
    ServiceName,
    ShopOption,
    Target,
    operator_name,
    target,
)
from eshop.cluster.errors import ClusterError
from eshop.contracts.services import SERVICES

if TYPE_CHECKING:
    from eshop.contracts.proto import dead_letters_v1_pb2 as pb

app = typer.Typer(
    no_args_is_help=True,
    help="Show, replay or discard dead letters: messages that a service could never handle. For operators.",
)

T = TypeVar("T")
Chosen = Iterable[tuple[str, Sequence[Target]]]
Status = Literal["parked", "replayed", "discarded", "all"]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The dead letter's.", show_default=False)]
IdsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="ID", help="The dead letters'.", show_default=False)
]
ServiceOption = Annotated[
    ServiceName | None, typer.Option("--service", help="Ask one service only.", show_default=False)
]
CauseOption = Annotated[
    str | None, typer.Option("--cause", metavar="TEXT", help="Only letters of one cause.", show_default=False)
]
StatusOption = Annotated[Status, typer.Option("--status", help="Status of the letters.")]
LimitOption = Annotated[
    int, typer.Option(min=0, metavar="COUNT", help="Most letters that are shown one by one.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="For programs.")]


@app.command("list")
def list_letters(
    cause: CauseOption = None,
    service: ServiceOption = None,
    status: StatusOption = "parked",
    limit: LimitOption = 50,
    as_json: JsonOption = False,
    data: ShopOption = None,
) -> None:
    """Show dead letters: their number by cause, held partitions, and the oldest letters one by one.

    [bold]held[/]: 5 messages of a partition were parked within 60 s. Its next poison message blocks it until
    some of them are replayed or discarded.

    --json prints {"groups": […], "held": […], "letters": […], "more": true if --limit left letters out}.

    Example: [bold]eshop deadletters list --cause undecodable --service payments[/]
    """
    # Only now: the launcher has no need of gRPC.
    from eshop.cli.client import dead_letters  # noqa: PLC0415
    from eshop.cli.plain import plain  # noqa: PLC0415

    chosen = (cause or "", "" if status == "all" else status)
    groups, held, letters = [], [], []
    for where in _targets(service, data):
        of_service = {"service": where.service}
        summary = dead_letters.summarize(where, *chosen)
        groups += [of_service | plain(group) for group in summary.groups]
        held += [of_service | plain(partition) for partition in summary.held]
        found = islice(dead_letters.letters(where, *chosen), limit + 1)
        letters += [of_service | plain(letter) for letter in found]
    letters.sort(key=lambda letter: letter["parked_at"])
    shown = {"groups": groups, "held": held, "letters": letters[:limit], "more": len(letters) > limit}
    if as_json:
        typer.echo(json.dumps(shown))
    else:
        _print_list(shown)


@app.command()
def show(
    dead_letter_id: IdArgument,
    service: ServiceOption = None,
    as_json: JsonOption = False,
    data: ShopOption = None,
) -> None:
    """Show a dead letter: the whole message, its origin, its cause, and the actions on it.

    Content that is no text is shown in base64, after "base64:".

    Example: [bold]eshop deadletters show 01a204a5-b233-764f-b8b2-3123bc7b4c5c[/]
    """
    # Only now: the launcher has no need of gRPC.
    from eshop.cli.client import dead_letters  # noqa: PLC0415
    from eshop.cli.plain import plain  # noqa: PLC0415

    where, found = _first(_targets(service, data), lambda one: dead_letters.show(one, dead_letter_id))
    whole = {"service": where.service} | plain(found)
    if as_json:
        typer.echo(json.dumps(whole))
    else:
        _print_whole(whole)


@app.command()
def replay(
    reason: ReasonOption,
    dead_letter_ids: IdsArgument = None,
    cause: CauseOption = None,
    service: ServiceOption = None,
    operator: OperatorOption = None,
    data: ShopOption = None,
) -> None:
    """Have a service handle parked messages like new messages, each once, even if repeated.

    By id, or all parked messages of a --cause, oldest first. A message that still can't be handled stays
    parked, and the reason is shown. Exit code 1 if a message is not replayed in the end.

    Example: [bold]eshop deadletters replay --cause "SQLSTATE 23514" --reason "the check is gone"[/]
    """
    from eshop.cli.client import dead_letters  # noqa: PLC0415  only now: the launcher has no need of gRPC

    chosen = _chosen(dead_letter_ids, cause, _targets(service, data))
    _act_on(chosen, dead_letters.replay, "replayed", reason, operator_name(operator))


@app.command()
def discard(
    reason: ReasonOption,
    dead_letter_ids: IdsArgument = None,
    cause: CauseOption = None,
    service: ServiceOption = None,
    operator: OperatorOption = None,
    data: ShopOption = None,
) -> None:
    """Discard parked messages: they will have no effect.

    By id, or all parked messages of a --cause, oldest first. Exit code 1 if a message was replayed before.

    Example: [bold]eshop deadletters discard --cause undecodable --service orders --reason "a test's"[/]
    """
    from eshop.cli.client import dead_letters  # noqa: PLC0415  only now: the launcher has no need of gRPC

    chosen = _chosen(dead_letter_ids, cause, _targets(service, data))
    _act_on(chosen, dead_letters.discard, "discarded", reason, operator_name(operator))


def _targets(service: str | None, data: Path | None) -> list[Target]:
    return [target(name, data) for name in ([service] if service else SERVICES)]


def _first(targets: Sequence[Target], ask: Callable[[Target], T]) -> tuple[Target, T]:
    """Return the reply of the first service that has the dead letter; raise Missing if none has."""
    from eshop.cli.client.call import Missing  # noqa: PLC0415  only now: the launcher has no need of gRPC

    for where in targets[:-1]:
        try:
            return where, ask(where)
        except Missing:
            continue
    return targets[-1], ask(targets[-1])


def _chosen(dead_letter_ids: Sequence[str] | None, cause: str | None, targets: Sequence[Target]) -> Chosen:
    """Return the dead letters of a command, with the services that may have each."""
    if bool(dead_letter_ids) == bool(cause):
        raise ClusterError("say which: either ids, or a --cause")
    return _by_id(dead_letter_ids, targets) if dead_letter_ids else _by_cause(cause or "", targets)


def _by_id(dead_letter_ids: Sequence[str], targets: Sequence[Target]) -> Chosen:
    """Return dead letters of any service, oldest first: ids are made of the time."""
    return [(dead_letter_id, targets) for dead_letter_id in sorted(set(dead_letter_ids))]


def _by_cause(cause: str, targets: Sequence[Target]) -> Iterator[tuple[str, Sequence[Target]]]:
    from eshop.cli.client import dead_letters  # noqa: PLC0415  only now: the launcher has no need of gRPC

    for where in targets:
        for letter in dead_letters.letters(where, cause, "parked"):
            yield letter.dead_letter_id, [where]


def _act_on(
    chosen: Chosen,
    do: "Callable[[Target, pb.ActRequest], pb.ActReply]",
    wanted: str,
    reason: str,
    operator: str,
) -> None:
    """Act on the letters one by one, print each result, and end with 1 if one has another status."""
    from eshop.cli.client.call import Missing  # noqa: PLC0415  only now: the launcher has no need of gRPC
    from eshop.contracts.proto import dead_letters_v1_pb2 as pb  # noqa: PLC0415

    counts = {True: 0, False: 0}
    for dead_letter_id, targets in chosen:
        request = pb.ActRequest(dead_letter_id=dead_letter_id, reason=reason, operator=operator)
        try:
            where, reply = _first(targets, lambda one: do(one, request))  # noqa: B023  called at once
        except Missing as missing:
            counts[False] += 1
            errors.print(str(missing), markup=False, soft_wrap=True)
            continue
        counts[reply.status == wanted] += 1
        said = _sentence(where, reply, wanted)
        console.print(_shown(f"{dead_letter_id} {said}"), markup=False, soft_wrap=True)
    console.print(f"{counts[True]} {wanted}" + (f", {counts[False]} not" if counts[False] else ""))
    if counts[False]:
        raise typer.Exit(1)


def _sentence(where: Target, reply: "pb.ActReply", wanted: str) -> str:
    if reply.done:
        return wanted
    if reply.status != "parked":
        return f"was {reply.status} before"
    if reply.cause == "unreadable":
        return f"can't be replayed: {_one_line(reply.error)}; look at it with `show`, then discard it"
    if reply.cause == "undecodable":
        hint = f"it can be replayed once the {where.service} service has code that reads it"
        return f"still can't be read: {_one_line(reply.error)}; {hint}"
    return f"still can't be handled, and stays parked: {reply.cause}: {_one_line(reply.error)}"


def _print_list(shown: dict[str, Any]) -> None:
    if not shown["groups"]:
        console.print("there are no dead letters of that kind")
    else:
        table = Table("service", "cause", "status", "count", "first parked", "last parked")
        for group in shown["groups"]:
            words = (group["service"], group["cause"], group["status"], f"{group['count']:,}")
            table.add_row(*words, _second(group["first_parked_at"]), _second(group["last_parked_at"]))
        console.print(table)
    for held in shown["held"]:
        console.print(
            f"[bold red]held:[/] {held['topic']}/{held['partition']} of {held['service']}: "
            f"{held['parked']} were parked at about the same time; the next message that can't be handled "
            "waits, and all behind it, until enough of them were replayed or discarded",
            soft_wrap=True,
        )
    for letter in shown["letters"]:
        console.print(_shown(_line(letter)), markup=False, soft_wrap=True)
    if shown["letters"] and shown["more"]:
        console.print("… and more: --limit")


def _line(letter: dict[str, Any]) -> str:
    about = ", ".join(f"{name} {letter[f'{name}_id']}" for name in ("user", "order") if letter[f"{name}_id"])
    return (
        f"{letter['dead_letter_id']} {letter['service']} {letter['status']} {_second(letter['parked_at'])}\n"
        f"    {letter['type'] or 'no type'} from {_place(letter)}{', ' * bool(about)}{about}\n"
        f"    {letter['cause']}: {_one_line(letter['error'])}"
    )


def _print_whole(whole: dict[str, Any]) -> None:
    letter = whole["dead_letter"]
    rows = [
        ("dead letter", letter["dead_letter_id"]),
        ("service", whole["service"]),
        ("status", letter["status"]),
        ("cause", f"{letter['cause']}: {letter['error']}"),
        ("parked", letter["parked_at"]),
        ("read from", _place(letter)),
        ("message", f"{letter['message_id']} {letter['type'] or ''}"),
        ("order", letter["order_id"]),
        ("key", whole["key"]),
        *((f"header {header['name']}", header["value"]) for header in whole["headers"]),
        ("value", whole["value"]),
        *((act["action"], f"{act['at']} by {act['operator']}: {act['reason']}") for act in whole["actions"]),
    ]
    for name, text in rows:
        console.print(f"{name:<20} {'-' if text is None else _shown(text)}", markup=False, soft_wrap=True)


def _place(letter: dict[str, Any]) -> str:
    return f"{letter['topic']}/{letter['partition']}@{letter['offset']}"


def _second(time: str) -> str:
    """Return a time for people."""
    return time[:19].replace("T", " ")


def _one_line(error: str) -> str:
    return " ".join(error.split())


def _shown(text: str) -> str:
    """Return foreign text without the characters that a terminal would obey."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
