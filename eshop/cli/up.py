"""`eshop up` and `eshop down`: run the whole shop, and stop it."""

import inspect
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated, TextIO

import psutil
import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from eshop.cli.console import DataOption, console, data_folder
from eshop.cli.screen import Screen, show_missing, show_urls
from eshop.cluster.embedded import Parts
from eshop.cluster.errors import ClusterError
from eshop.cluster.folder import DataFolder, temporary_folder
from eshop.cluster.jars import KAFKA_VERSION, Jar, cache_folder, fetch_jars, locked_jars, missing_jars
from eshop.cluster.launcher import Launcher
from eshop.cluster.os_user import remove_folder
from eshop.cluster.services import BASE_PORTS, Plan, make_plan, parse_scale
from eshop.settings import Settings

DETACH_SECONDS_MAX = 300.0
DOWN_SECONDS_MAX = 90.0
POLL_SECONDS = 0.1

PortOption = Annotated[
    int | None, typer.Option(min=1, max=65_535, metavar="PORT", rich_help_panel="Ports", show_default=False)
]


def _parameter(name: str) -> str:
    return f"{name.replace('-', '_')}_port"


def _with_port_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for every port of a run in place of its ``**ports``."""
    signature = inspect.signature(command, eval_str=True)
    options = {_parameter(name): PortOption for name in BASE_PORTS}
    parameters = [known for known in signature.parameters.values() if known.kind is not known.VAR_KEYWORD]
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
        for name, option in options.items()
    ]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ |= options
    return command


@_with_port_options
def up(
    data: DataOption = None,
    scale: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND=N", help="More of a kind, e.g. orders=2,gateway=2. Repeatable."),
    ] = None,
    ephemeral: Annotated[
        bool, typer.Option("--ephemeral", help="Free ports, and a temporary folder removed at the end.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when all is ready; end it with `eshop down`.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Do not show the processes' logs.")] = False,
    **ports: int | None,
) -> None:
    """Start Kafka, Postgres, Valkey, the workers and the gateway; stop all of it with Ctrl-C.

    A process that crashes is restarted. Data stays in the data folder for the next start.

    Examples: [bold]eshop up[/], [bold]eshop up --scale orders=2,payments=2[/], [bold]eshop up --postgres-port
    5433[/], [bold]eshop up --ephemeral --detach[/]
    """
    chosen = {name: ports[_parameter(name)] for name in BASE_PORTS}
    numbers = parse_scale(scale or ())
    fetch_with_progress(Settings())
    folder = _temporary_folder(data) if ephemeral else data_folder(data)
    if detach:
        _detach(folder)
        return
    stop_wanted = _stop_on_signals()
    folder.lock()
    try:
        _run(folder, make_plan(chosen, numbers, ephemeral=ephemeral), stop_wanted, ephemeral, quiet)
    except ClusterError as error:
        if not folder.log("launcher").exists():  # nothing was started
            raise
        kept = folder.keep_logs() if ephemeral else folder.logs
        raise ClusterError(f"{error}\nall logs: {kept}") from error
    finally:
        if ephemeral:
            remove_folder(folder.path / "postgres")
            remove_folder(folder.path)
        folder.unlock()


def _run(folder: DataFolder, plan: Plan, stop_wanted: threading.Event, ephemeral: bool, quiet: bool) -> None:
    began = time.monotonic()
    settings = Settings()
    parts = Parts.of(folder.path, plan.parts, settings, ephemeral=ephemeral)
    screen = Screen(folder.log("launcher"))
    launcher = Launcher(folder, plan, parts, settings, screen.announce, stop_wanted)
    try:
        launcher.start()
        show_urls(plan, folder.path, time.monotonic() - began)
        show_missing(launcher.missing())
        screen.follow([] if quiet else [child.process.log for child in launcher.children])
        launcher.watch(screen.show_new_lines)
    except ClusterError:
        if not stop_wanted.is_set():
            raise
    finally:
        console.print("stopping …")
        launcher.stop()


def fetch_with_progress(settings: Settings) -> None:
    """Download the missing jars, with a progress bar."""
    folder, jars = cache_folder(settings.cache), locked_jars()
    missing: tuple[Jar, ...] = missing_jars(folder, jars)
    if not missing:
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console) as progress:
        total = sum(jar.size_bytes for jar in missing)
        task = progress.add_task(f"fetching Kafka {KAFKA_VERSION} ({len(missing)} jars)", total=total)
        fetch_jars(folder, missing, lambda size: progress.advance(task, size))


def _temporary_folder(data: Path | None) -> DataFolder:
    """Return a folder that may be removed at the end: a new folder, or a given empty folder."""
    if data is None:
        return temporary_folder()
    folder = DataFolder(data)
    if not folder.may_be_removed():
        raise ClusterError(f"--ephemeral removes its folder at the end, and {data} is not empty")
    return folder


def _stop_on_signals() -> threading.Event:
    """Return the event that Ctrl-C, SIGTERM or hang-up sets; after a second signal the guardian acts."""
    wanted = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if wanted.is_set():
            os._exit(1)
        wanted.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    return wanted


def _detach(folder: DataFolder) -> None:
    """Run the same command in its own session; return when it is ready, or fail with its error."""
    words = [word for word in sys.argv[1:] if word not in {"--detach", "-d"}]
    folder.make()
    log = folder.log("detached")
    # Opened early: a launcher that fails removes an ephemeral folder.
    with log.open("wb") as output, log.open(encoding="utf-8", errors="replace") as said:
        launcher = subprocess.Popen(
            [sys.executable, "-m", "eshop.cli", *words, "--quiet", "--data", str(folder.path)],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        _wait_for_detached(launcher, folder, said)


def _wait_for_detached(launcher: "subprocess.Popen[bytes]", folder: DataFolder, said: TextIO) -> None:
    end = time.monotonic() + DETACH_SECONDS_MAX
    while time.monotonic() < end:
        record = folder.record()
        if record is not None and record.pid == launcher.pid and record.ready:
            typer.echo(said.read(), nl=False)
            place = shlex.quote(str(folder.path))
            typer.echo(f"It runs in the background: eshop status --data {place}, eshop down likewise.")
            return
        if launcher.poll() is not None:
            raise ClusterError(f"the cluster did not start:\n{said.read().strip()}")
        time.sleep(POLL_SECONDS)
    launcher.terminate()
    log = folder.log("detached")
    raise ClusterError(f"the cluster was not ready after {DETACH_SECONDS_MAX:.0f} s; see {log}")


def down(data: DataOption = None) -> None:
    """Stop the cluster that runs in the data folder, in order, and wait for its end.

    Example: [bold]eshop down[/]
    """
    folder = data_folder(data)
    record = folder.record()
    if record is None or not record.is_alive():
        console.print(f"nothing runs in {folder.path}", markup=False)
        return
    psutil.Process(record.pid).terminate()
    end = time.monotonic() + DOWN_SECONDS_MAX
    while folder.is_locked() or record.is_alive():
        if time.monotonic() > end:
            raise ClusterError(f"process {record.pid} has not ended in {DOWN_SECONDS_MAX:.0f} s")
        time.sleep(POLL_SECONDS)
    console.print("stopped")
