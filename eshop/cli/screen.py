"""The output of `eshop up`: events of the children, the table of addresses, and all logs in one stream."""

import logging
import re
import time
from itertools import filterfalse
from logging.handlers import RotatingFileHandler
from pathlib import Path

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from eshop.cli.console import console
from eshop.cluster.logs import LOG_BYTES_MAX, Tail
from eshop.cluster.ports import HOST
from eshop.cluster.services import Plan
from eshop.cluster.supervisor import Supervised

COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "bright_cyan", "bright_green", "bright_magenta")
NAME_WIDTH = 13
USER = "3b0c9b6e-7a51-4c1e-9a53-1f5f0c0f7d10"
#: The gateway logs every request, and printing the lines costs 0.3 ms of CPU an order: what succeeded is in
#: the log file only.
_succeeded = re.compile(r" INFO gateway\.access \S+ \S+ [123]\d\d ").search


class Screen:
    """The console of a launcher; its own news go to a log file too."""

    def __init__(self, log: Path) -> None:
        self._tails: list[tuple[Text, Tail]] = []
        self._log = logging.getLogger("eshop.launcher")
        self._log.setLevel(logging.INFO)
        self._log.propagate = False
        handler = RotatingFileHandler(log, maxBytes=LOG_BYTES_MAX, backupCount=1, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        self._log.addHandler(handler)

    def announce(self, name: str, text: str) -> None:
        """Print an event of a child. Called from several threads."""
        self._log.info("%s %s", name, text)
        line = Text.assemble((f"{'eshop':<{NAME_WIDTH}}", "bold white"), f"│ {name} {text}")
        console.print(line, soft_wrap=True)

    def follow(self, logs: list[Path]) -> None:
        """Show new lines of the logs from now on, each with its name in a colour of its own."""
        self._tails = [
            (
                Text.assemble((f"{path.stem:<{NAME_WIDTH}}", COLOURS[number % len(COLOURS)]), "│ "),
                Tail(path),
            )
            for number, path in enumerate(logs)
        ]

    def show_new_lines(self) -> None:
        """Show the lines since the last call, without requests that succeeded."""
        for prefix, tail in self._tails:
            for line in filterfalse(_succeeded, tail.new_lines()):
                console.print(prefix + Text.from_ansi(line), soft_wrap=True)


def show_urls(plan: Plan, data: Path, seconds: float) -> None:
    """Print all addresses, and a first command to try."""
    table = Table(title=f"eshop is ready after {seconds:.1f} s", title_justify="left")
    table.add_column("what")
    table.add_column("where", overflow="fold")
    for service in plan.services:
        grpc = f"   gRPC {HOST}:{service.grpc_port}" if service.grpc_port else ""
        table.add_row(service.name, f"http://{HOST}:{service.web_port}{grpc}")
    parts = plan.parts
    table.add_row("Kafka", f"{HOST}:{parts.kafka}")
    table.add_row("Postgres", f"postgresql://postgres:postgres@{HOST}:{parts.postgres}/postgres")
    table.add_row("Valkey", f"redis://{HOST}:{parts.valkey}/0")
    table.add_row("data, logs", escape(str(data)))
    console.print(table)
    gateway = plan.of_kind("gateway")[0]
    console.print("Try:", style="bold")
    console.print(
        f"  curl -X POST http://{HOST}:{gateway.web_port}/api/v1/accounts -H 'X-User-Id: {USER}' "
        f"-H 'Idempotency-Key: first-wallet' -H 'Content-Type: application/json' -d '{{}}'",
        markup=False,
        soft_wrap=True,
    )
    console.print(
        time.strftime("%H:%M:%S") + "  Ctrl-C stops it. `eshop status`, `eshop logs NAME` show more."
    )


def show_missing(missing: list[Supervised]) -> None:
    """Print the missing optional parts, and that their start is retried."""
    for child in missing:
        console.print(
            f"[bold yellow]without {child.name}:[/] it is not ready, and is started again until it is"
        )
        console.print(f"  {child.process.cause_of_end() or 'it is still starting'}", markup=False)
