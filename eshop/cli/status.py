"""`eshop status` and `eshop logs`: a view of a cluster that another `eshop up` runs."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from eshop.cli.console import DataOption, console, data_folder
from eshop.cluster import probes
from eshop.cluster.errors import ClusterError
from eshop.cluster.folder import ProcessRecord, RunRecord
from eshop.cluster.logs import Tail, last_lines

FOLLOW_SECONDS = 0.2
LINES_MAX = 100_000


def is_ready(process: ProcessRecord) -> bool:
    """Ask a child itself."""
    match process.kind:
        case "kafka":
            return probes.kafka_is_ready(process.ports["kafka"])
        case "postgres":
            return probes.postgres_is_ready(process.ports["postgres"])
        case "valkey":
            return probes.valkey_is_ready(process.ports["redis"])
        case _:
            return probes.http_is_ready(process.ports["http"])


def status(
    data: DataOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show every process of the running cluster: state, readiness, id, ports, uptime, restarts.

    Exit code 1 if no cluster runs or a process is not ready. The shop serves without projections; `ready`
    beside `processes` in --json tells whether it serves.

    Example: [bold]eshop status --json | jq '.processes[] | {name, pid, ready}'[/]
    """
    folder = data_folder(data)
    record = folder.record()
    if record is None or not record.is_alive():
        if as_json:
            typer.echo(json.dumps({"running": False, "data": str(folder.path), "processes": []}))
            raise typer.Exit(1)
        raise ClusterError(f"nothing runs in {folder.path}: start it with `eshop up`")
    rows = [asdict(process) | _live(process) for process in record.processes]
    if as_json:
        whole = {"running": True, "ready": record.ready, "data": str(folder.path), "pid": record.pid}
        typer.echo(json.dumps(whole | {"processes": rows}, indent=2))
    else:
        console.print(_table(folder.path, record, rows))
    if not record.ready or not all(row["ready"] for row in rows):
        raise typer.Exit(1)


def _live(process: ProcessRecord) -> dict[str, object]:
    running = process.pid is not None
    return {
        "ready": running and is_ready(process),
        "uptime_seconds": round(time.time() - process.started_at, 1) if running else None,
    }


def _table(path: Path, record: RunRecord, rows: list[dict[str, object]]) -> Table:
    table = Table(title=escape(f"{path} (launcher: process {record.pid})"), title_justify="left")
    for column in ("name", "state", "ready", "pid", "ports", "uptime", "restarts"):
        table.add_column(column)
    for process, row in zip(record.processes, rows, strict=True):
        ports = ", ".join(f"{name} {port}" for name, port in process.ports.items())
        table.add_row(
            process.name,
            process.state,
            "[green]yes[/]" if row["ready"] else "[red]no[/]",
            str(process.pid or "-"),
            ports,
            _duration(row["uptime_seconds"]),
            str(process.restarts),
        )
    return table


def _duration(seconds: object) -> str:
    if not isinstance(seconds, float):
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes}m" if hours else f"{minutes}m {rest}s"


def logs(
    name: Annotated[str, typer.Argument(help="orders, payments, gateway-2, kafka, launcher, …")],
    data: DataOption = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, max=LINES_MAX, help="How many.")] = 50,
) -> None:
    """Show the last lines of a process's log.

    Example: [bold]eshop logs -f payments[/]
    """
    folder = data_folder(data)
    path = folder.log(name)
    if not path.is_file():
        names = ", ".join(sorted(found.stem for found in path.parent.glob("*.log"))) or "none yet"
        raise ClusterError(f"there is no log of {name!r} in {folder.path}; there are: {names}")
    tail = Tail(path)
    for line in last_lines(path, lines):
        typer.echo(line)
    try:
        while follow:
            for line in tail.new_lines():
                typer.echo(line)
            time.sleep(FOLLOW_SECONDS)
    except KeyboardInterrupt:
        return
