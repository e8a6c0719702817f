"""`eshop audit`: checks the shop's invariants on a live system."""

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from eshop.cli.console import console, data_folder, errors
from eshop.cli.operators import ShopOption
from eshop.cluster.errors import ClusterError
from eshop.cluster.ports import HOST
from eshop.settings import Settings, split_address

if TYPE_CHECKING:
    from eshop.audit.audit import Wanted
    from eshop.audit.findings import NotJudged, Report
    from eshop.audit.sources import Sources

BROKEN, NOT_JUDGED = 1, 2

SettleOption = Annotated[
    float, typer.Option(min=0, metavar="SECONDS", help="Longest wait for the shop to become idle.")
]
AnswersOption = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, metavar="FILE", help="Log of a load client; JSON lines."),
]
ExceptOption = Annotated[
    list[str] | None, typer.Option("--except", metavar="ID", help="Leave an invariant out; repeatable.")
]
EveryOption = Annotated[
    float | None, typer.Option(min=1, metavar="SECONDS", help="Audit again and again, as a metric.")
]
ListenOption = Annotated[str, typer.Option(metavar="HOST:PORT", help="Address for the metrics of --every.")]
OrdersUrlOption = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Database of orders; default: ESHOP_ORDERS_DATABASE_URL."),
]
PaymentsUrlOption = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Database of payments; default: ESHOP_PAYMENTS_DATABASE_URL."),
]


def audit(
    data: ShopOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    settle: SettleOption = 5.0,
    answers: AnswersOption = None,
    leave: ExceptOption = None,
    every: EveryOption = None,
    listen: ListenOption = "127.0.0.1:9464",
    orders_database: OrdersUrlOption = None,
    payments_database: PaymentsUrlOption = None,
) -> None:
    """Check every invariant of the shop on its databases and topics, while it runs. Changes nothing.

    Exit code: 0 if all invariants hold, 1 if one is broken, 2 without a verdict. Reads as the services' own
    run-time roles, page by page: no snapshot of a database lives longer than 30 s. A temporary file takes
    about 500 bytes per order.

    --json prints {"ok", "judged", "checked": {name: count}, "unjudged": {name: count}, "invariants": [{"id",
    "name", "holds", "warning", "skipped", "broken": count, "examples": [{"about": {name: id}, "saw": {side:
    view}}]}], "seconds"}, or {"ok": false, "judged": false, "error"}.

    A line of --answers is the response to a request for an order: {"status": 201, "order_id": "…",
    "idempotency_key": "…", "user_id": "…"}; a status of 0 means no response.

    Example: [bold]eshop audit --settle 60[/]
    """
    # The verdict reports a lost broker, once; aiokafka would log every attempt.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        wanted, show = _wanted(
            data, settle, answers, leave or [], orders_database, payments_database, as_json
        )
        if every is not None:
            _keep_auditing(wanted, every, listen, as_json)
            return
        with show:
            report = _audit_once(wanted)
    except ClusterError as reason:  # no verdict, so never the exit code of a broken invariant
        _tell(reason, as_json)
        raise typer.Exit(NOT_JUDGED) from reason
    _tell(report, as_json)
    if not report.ok:
        raise typer.Exit(BROKEN)


def _audit_once(wanted: "Wanted") -> "Report":
    # Only now: the launcher does not need the audit.
    from eshop.audit.audit import audit as run  # noqa: PLC0415
    from eshop.audit.findings import NotJudged  # noqa: PLC0415

    try:
        return asyncio.run(run(wanted))
    except NotJudged as reason:
        raise ClusterError(str(reason)) from reason


def _keep_auditing(wanted: "Wanted", seconds: float, listen: str, as_json: bool) -> None:
    from eshop.audit.metrics import audit_every  # noqa: PLC0415

    try:
        address = split_address(listen)
    except ValueError as error:
        raise ClusterError(f"--listen: {error}") from error
    errors.print(f"metrics at http://{listen}/metrics", markup=False)
    try:
        asyncio.run(audit_every(wanted, seconds, address, lambda outcome: _tell(outcome, as_json)))
    except KeyboardInterrupt:
        return
    except OSError as error:
        raise ClusterError(f"--listen {listen}: {error.strerror}") from error


def _wanted(
    data: Path | None,
    settle: float,
    answers: Path | None,
    leave: list[str],
    orders_database: str | None,
    payments_database: str | None,
    as_json: bool,
) -> tuple["Wanted", Progress]:
    from eshop.audit.audit import Wanted  # noqa: PLC0415
    from eshop.audit.findings import IDS  # noqa: PLC0415

    unknown = sorted(set(leave) - set(IDS))
    if unknown:
        raise ClusterError(f"--except {unknown[0]}: want one of {', '.join(IDS)}")
    show = _Steps(as_json)
    sources = find_sources(data, orders_database, payments_database)
    return Wanted(sources, show, settle, answers, frozenset(leave)), show.progress


def find_sources(data: Path | None, orders_database: str | None, payments_database: str | None) -> "Sources":
    """Return the sources of the chosen shop.

    The shop that runs in ``data`` if given; else the addresses of the options and ESHOP_KAFKA; else the shop
    that runs in the default folder, on any ports; else the default addresses.
    """
    from eshop.audit.sources import Sources  # noqa: PLC0415

    settings = Settings()
    urls = {
        "orders": orders_database or settings.audited_database_url("orders"),
        "payments": payments_database or settings.audited_database_url("payments"),
    }
    kafka = settings.kafka
    ports: dict[str, int] = {}
    if data is not None or "kafka" not in settings.model_fields_set:
        ports = _running_ports(data)
        kafka = f"{HOST}:{ports['kafka']}" if ports else kafka
    if data is not None and not ports:
        raise ClusterError(f"nothing runs in {data_folder(data).path}: start it with `eshop up`")
    for service, url in urls.items():
        if url is None and ports:
            urls[service] = f"postgresql://{service}_app:{service}_app@{HOST}:{ports['postgres']}/{service}"
        elif url is None and settings.database_url is not None:
            raise ClusterError(
                f"ESHOP_DATABASE_URL is one service's: name both, with --{service}-database too"
            )
    return Sources(
        urls["orders"] or settings.service_database_url("orders"),
        urls["payments"] or settings.service_database_url("payments"),
        kafka,
        settings,
    )


def _running_ports(data: Path | None) -> dict[str, int]:
    """Return the ports of Kafka and Postgres of the shop in the folder; empty if none runs."""
    record = data_folder(data).record()
    if record is None or not record.is_alive():
        return {}
    return {
        name: port
        for process in record.processes
        for name, port in process.ports.items()
        if process.kind in ("kafka", "postgres") and name == process.kind
    }


class _Steps:
    """Shows each step of the audit on standard error, with a bar if its length is known."""

    def __init__(self, is_silent: bool) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=errors,
            transient=True,
            disable=is_silent or not errors.is_terminal,
        )
        self._task: TaskID | None = None

    def step(self, name: str, total: int | None) -> Callable[[int], None]:
        """Begin a step; the step before has ended."""
        if self._task is not None:
            self.progress.remove_task(self._task)
        task = self._task = self.progress.add_task(name, total=total)
        return lambda count: self.progress.advance(task, count)


def _tell(outcome: "Report | NotJudged | ClusterError", as_json: bool) -> None:
    if isinstance(outcome, Exception):
        if as_json:
            typer.echo(json.dumps({"ok": False, "judged": False, "error": str(outcome)}))
        else:
            errors.print("[bold red]not judged:[/] ", end="")
            errors.print(str(outcome), markup=False, soft_wrap=True)
    elif as_json:
        typer.echo(json.dumps(outcome.as_json()))
    else:
        _print_report(outcome.as_json())


def _print_report(report: dict[str, Any]) -> None:
    table = Table(title_justify="left", title=_title(report))
    for column in ("", "invariant", "broken", "what must hold"):
        table.add_column(column)
    for invariant in report["invariants"]:
        table.add_row(invariant["id"], invariant["name"], _verdict(invariant), invariant["holds"])
    console.print(table)
    for invariant in report["invariants"]:
        shown = invariant["examples"]
        if not shown:
            continue
        console.print(f"\n[bold]{invariant['id']} {invariant['name']}[/]: {invariant['broken']} in all")
        for example in shown:
            about = ", ".join(f"{name} {value}" for name, value in example["about"].items())
            saw = "; ".join(f"{side}: {what}" for side, what in example["saw"].items())
            console.print(f"  {about}\n    {saw}", markup=False, soft_wrap=True)


def _title(report: dict[str, Any]) -> str:
    checked = ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in report["checked"].items())
    unjudged = ", ".join(
        f"{count:,} {what.replace('_', ' ')}" for what, count in report["unjudged"].items() if count
    )
    rest = f"\nout of judgement: {unjudged}" if unjudged else ""
    return f"{checked} in {report['seconds']:.1f} s{rest}"


def _verdict(invariant: dict[str, Any]) -> str:
    if invariant["skipped"]:
        return "[dim]left out[/]"
    if not invariant["broken"]:
        return "[green]0[/]"
    colour = "yellow" if invariant["warning"] else "red"
    return f"[{colour}]{invariant['broken']:,}[/]"
