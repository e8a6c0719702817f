"""`eshop doctor` and `eshop version`: the installed parts, and remedies for missing ones."""

import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata

import typer
from rich.table import Table

from eshop.cli.console import DataOption, console, data_folder
from eshop.cluster.errors import ClusterError
from eshop.cluster.folder import DataFolder
from eshop.cluster.jars import KAFKA_VERSION, cache_folder, locked_jars, missing_jars
from eshop.cluster.java import find_java
from eshop.cluster.os_user import unprivileged_user
from eshop.cluster.ports import holder_of, is_taken
from eshop.cluster.postgres import postgres_version
from eshop.cluster.services import BASE_PORTS
from eshop.cluster.valkey import valkey_version
from eshop.environment import GIVEN, ignored, is_in_effect
from eshop.kafka.record_batches import CODECS, broken_codecs
from eshop.settings import Settings

DISK_BYTES_MIN = 2 * 1024**3
LIBRARIES = ("faust-streaming", "aiokafka", "aiohttp", "aiopg", "SQLAlchemy", "grpcio", "pydantic", "redis")


@dataclass(frozen=True, slots=True)
class Finding:
    """The finding of a check; ``mend`` is the remedy if it fails."""

    name: str
    found: str
    mend: str | None = None


def version() -> None:
    """Show the versions of the shop and of its parts.

    Example: [bold]eshop version[/]
    """
    typer.echo(f"eshop {metadata.version('eshop')}")
    typer.echo(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    typer.echo(f"Kafka {KAFKA_VERSION}")
    for part_version in (postgres_version, valkey_version):
        with suppress(ClusterError):  # an install without a cluster has none
            typer.echo(part_version())


def doctor(data: DataOption = None) -> None:
    """Check Python, libraries, codecs, Java, Kafka, Postgres, Valkey, ports and disk, with remedies.

    Names variables of other programs that are set: ignored ones, and ones that can't be ignored.

    Exit code 1 if a fault would keep the cluster from starting.

    Example: [bold]eshop doctor[/]
    """
    folder, settings = data_folder(data), Settings()
    findings = [
        _checked("Python", _python),
        _checked("libraries", _libraries),
        _checked("codecs", _codecs),
        _checked("Java", lambda: _java(settings)),
        _checked("Kafka", lambda: _kafka(settings)),
        _checked("Postgres", _postgres),
        _checked("Valkey", lambda: Finding("Valkey", valkey_version())),
        _checked("disk", lambda: _disk(folder)),
        *_environment(),
        *_ports(folder),
    ]
    table = Table("check", "found", "what to do", show_lines=False)
    for finding in findings:
        mark = "[green]✓[/]" if finding.mend is None else "[red]✗[/]"
        table.add_row(f"{mark} {finding.name}", finding.found, finding.mend or "")
    console.print(table)
    if any(finding.mend for finding in findings):
        raise typer.Exit(1)


def _checked(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except ClusterError as error:
        return Finding(name, "missing", str(error))
    except (ImportError, OSError, subprocess.SubprocessError) as error:
        return Finding(name, f"{type(error).__name__}: {error}", "install it: pip install 'eshop[cluster]'")


def _python() -> Finding:
    good = (3, 11) <= sys.version_info < (3, 14)
    mend = None if good else "use Python 3.11, 3.12 or 3.13: make up PYTHON=python3.12"
    return Finding("Python", f"{platform.python_version()} at {sys.executable}", mend)


def _libraries() -> Finding:
    missing = sorted(name for name in _required() if not _installed(name))
    found = ", ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES if _installed(name))
    return Finding("libraries", found, f"install {', '.join(missing)}: make up" if missing else None)


def _required() -> Iterable[str]:
    """Return the names of the product's own requirements (without its extras)."""
    for line in metadata.requires("eshop") or ():
        if "extra ==" not in line:
            yield re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0]


def _codecs() -> Finding:
    """Check compression: a topic may get any at any time, and no worker starts without."""
    broken = broken_codecs()
    good = ", ".join(name for name in CODECS if name not in broken)
    return Finding("codecs", good, f"install {', '.join(broken)}: make up" if broken else None)


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _java(settings: Settings) -> Finding:
    java = find_java(settings.java)
    return Finding("Java", f"{java.version} ({java.source}) at {java.path}")


def _kafka(settings: Settings) -> Finding:
    folder, jars = cache_folder(settings.cache), locked_jars()
    missing = missing_jars(folder, jars)
    if not missing:
        return Finding("Kafka", f"{KAFKA_VERSION}, {len(jars)} jars at {folder}")
    size = sum(jar.size_bytes for jar in missing) / 1e6
    return Finding("Kafka", f"{KAFKA_VERSION}, {size:.0f} MB to fetch at the next start (needs the network)")


def _postgres() -> Finding:
    user = unprivileged_user()
    return Finding("Postgres", postgres_version() + (f", as OS user {user.uid}" if user else ""))


def _disk(folder: DataFolder) -> Finding:
    place = next(path for path in (folder.path, *folder.path.parents) if path.exists())
    free = shutil.disk_usage(place).free
    found = f"{free / 1e9:.1f} GB free for {folder.path}"
    return Finding("disk", found, None if free >= DISK_BYTES_MIN else "free 2 GB, or use --data elsewhere")


def _environment() -> list[Finding]:
    """Name every variable that is set for another program: ignored ones, and ones that can't be ignored."""
    found = [Finding("ignored", f"{whose} {', '.join(names)}") for whose, names in ignored().items()]
    effective = sorted(name for name in GIVEN if is_in_effect(name))
    if effective:
        found.append(Finding("in effect", f"{', '.join(effective)}: part of every program that starts"))
    return found


def _ports(folder: DataFolder) -> list[Finding]:
    record = folder.record()
    if record is not None and record.is_alive():
        return [Finding("ports", f"this folder's cluster runs (process {record.pid})")]
    taken = {name: port for name, port in BASE_PORTS.items() if is_taken(port)}
    if not taken:
        return [Finding("ports", ", ".join(map(str, sorted(BASE_PORTS.values()))) + " are free")]
    return [
        Finding(
            f"port {port}",
            f"{name}'s is taken by {holder_of(port) or 'a process the system does not name'}",
            f"stop it, or start with --{name}-port PORT or --ephemeral",
        )
        for name, port in taken.items()
    ]
