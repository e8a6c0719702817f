"""The shop under test: started by its own launcher with the harness inside, looked into, and hurt."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil
import psycopg2

from eshop.cluster.folder import TEMPORARY_MARK, DataFolder, ProcessRecord
from eshop.cluster.os_user import remove_folder
from tests.faults.harness.launch import CONTROL, HURRIED, SEED
from tests.faults.harness.links import Mode
from tests.support.shop_process import Shop

SCALE = "orders=2,payments=2,gateway=2"
READY_SECONDS_MAX = 180.0
STOP_SECONDS_MAX = 90.0
POLL_SECONDS = 0.05
DISK_BYTES = 6 * 1024**3

T = TypeVar("T")


class NotShown(AssertionError):
    """A fault did not happen, or did not do what it must: the run proves nothing about it."""


async def until(condition: Callable[[], T], seconds_max: float, what: str) -> T:
    """Return what the condition returns once that is true; raise NotShown where time is up first."""
    end = time.monotonic() + seconds_max
    while not (found := condition()):
        if time.monotonic() > end:
            raise NotShown(f"{what}: not within {seconds_max:.0f} s")
        await asyncio.sleep(POLL_SECONDS)
    return found


@dataclass
class World:
    """A running shop and the ways to hurt it."""

    folder: Path
    shop: Shop
    launcher: subprocess.Popen[bytes]
    crash_points: Path
    has_own_disk: bool
    control: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    #: How often a process was ended on purpose.
    ended_by_us: Counter[str] = field(default_factory=Counter)
    #: How often the broker could not be reached, though it ran.
    broker_outages: int = 0
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def kafka(self) -> str:
        """The broker's own address."""
        return f"127.0.0.1:{self.shop.ports['kafka']['kafka']}"

    def records(self) -> dict[str, ProcessRecord]:
        """Return what the launcher knows of each process, by name."""
        record = DataFolder(self.shop.data).record()
        assert record is not None, "the launcher is gone"
        return {process.name: process for process in record.processes}

    def names(self, *kinds: str) -> list[str]:
        """Return the names of the processes of some kinds, of all kinds where none is given."""
        return [name for name, record in self.records().items() if not kinds or record.kind in kinds]

    def pid(self, name: str) -> int:
        """Return the process id; raise NotShown where there is none."""
        pid = self.records()[name].pid
        if pid is None:
            raise NotShown(f"{name} does not run")
        return pid

    def log(self, name: str) -> Path:
        """Return a process's log."""
        return DataFolder(self.shop.data).log(name)

    def log_part(self, name: str, from_byte: int) -> str:
        """Return what a process has logged since."""
        with self.log(name).open("rb") as file:
            file.seek(from_byte)
            return file.read().decode(errors="replace")

    def send(self, name: str, number: signal.Signals) -> int:
        """End a process by a signal; return its id."""
        pid = self.pid(name)
        os.kill(pid, number)
        self.ended_by_us[name] += 1
        return pid

    def send_family(self, name: str, number: signal.Signals) -> None:
        """Signal a process and its children, as Postgres has one for every connection."""
        process = psutil.Process(self.pid(name))
        for member in [process, *process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                member.send_signal(number)

    async def until_back(self, name: str, gone: int, seconds_max: float = 90) -> None:
        """Return when a new instance of the process is ready."""

        def is_back() -> bool:
            record = self.records()[name]
            return record.pid not in (None, gone) and record.state == "ready"

        await until(is_back, seconds_max, f"{name} is back")

    async def until_all_ready(self, seconds_max: float = 90) -> None:
        """Return when every process is ready."""
        await until(
            lambda: all(record.pid and record.state == "ready" for record in self.records().values()),
            seconds_max,
            "every process is ready",
        )

    async def tell(self, do: str, **what: Any) -> Any:
        """Have the harness inside the launcher do something."""
        assert self.control is not None
        reader, writer = self.control
        async with self._turn:
            writer.write(json.dumps({"do": do, **what}).encode() + b"\n")
            line = await asyncio.wait_for(reader.readline(), 10)
        if not line:
            raise NotShown(f"the harness did not {do} {what}")
        return json.loads(line)

    @asynccontextmanager
    async def weather(self, links: Iterable[str], mode: Mode) -> AsyncIterator[None]:
        """Have links in another mode for a while."""
        changed = list(links)
        try:
            for link in changed:
                await self.tell("mode", link=link, mode=mode)
            yield
        finally:
            for link in changed:
                await self.tell("mode", link=link, mode=Mode.OPEN)

    @asynccontextmanager
    async def stopped(self, names: Iterable[str]) -> AsyncIterator[None]:
        """Have processes end tidily, and not start again before the block is left."""
        held = list(names)
        gone = {name: self.pid(name) for name in held}
        try:
            for name in held:
                await self.tell("hold", name=name)
                self.send(name, signal.SIGTERM)
            for name, pid in gone.items():
                await until(
                    lambda pid=pid: not psutil.pid_exists(pid),  # type: ignore[misc]
                    30,
                    f"{name} ends on SIGTERM",
                )
            yield
        finally:
            for name in held:
                await self.tell("release", name=name)

    def query(self, service: str, sql: str, *parameters: object) -> list[Any]:
        """Ask a service's database as its superuser."""
        with self.shop.database(service) as ask:
            return ask(sql, *parameters)

    def execute(self, service: str, sql: str) -> None:
        """Change a service's database as its superuser."""
        port = self.shop.ports["postgres"]["postgres"]
        connection = psycopg2.connect(f"postgresql://postgres:postgres@127.0.0.1:{port}/{service}")
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql)
        finally:
            connection.close()

    async def ask(self, service: str, sql: str, *parameters: object, seconds_max: float = 60) -> list[Any]:
        """Ask as ``query`` does, again and again while the database is away."""
        end = time.monotonic() + seconds_max
        while True:
            try:
                return await asyncio.to_thread(self.query, service, sql, *parameters)
            except psycopg2.OperationalError:
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(0.2)

    async def number(self, service: str, sql: str) -> int:
        """Ask for one number."""
        rows = await self.ask(service, sql)
        return int(rows[0][0])


@asynccontextmanager
async def a_world(seed: int, *, keep: Path | None = None, is_hurried: bool = False) -> AsyncIterator[World]:
    """Start a shop with two of everything but projections, yield it when it is ready, and stop it."""
    folder, data, crash_points = _folders()
    async with AsyncExitStack() as at_end:
        at_end.callback(remove_folder, folder)
        has_own_disk = _mount_disk(data / "postgres")
        if has_own_disk:
            at_end.callback(_umount, data / "postgres")
        launcher = _launch(folder, data, crash_points, seed, is_hurried=is_hurried)
        at_end.callback(_end, launcher)
        if keep is not None:
            at_end.callback(_keep_logs, data / "logs", keep)
        world = World(folder, Shop(data), launcher, crash_points, has_own_disk)
        await _until_ready(world)
        world.control = await asyncio.open_unix_connection(folder / "control")
        at_end.push_async_callback(_make_harmless, world)
        yield world


def _keep_logs(logs: Path, keep: Path) -> None:
    if logs.is_dir():
        shutil.copytree(logs, keep, dirs_exist_ok=True)


def _folders() -> tuple[Path, Path, Path]:
    folder = Path(tempfile.mkdtemp(prefix="eshop-faults-"))
    folder.chmod(0o755)  # Postgres may run as another user of the machine
    data, crash_points = folder / "data", folder / "points"
    for path in (data, crash_points):
        path.mkdir()
    (data / TEMPORARY_MARK).touch()
    return folder, data, crash_points


def _launch(
    folder: Path, data: Path, crash_points: Path, seed: int, *, is_hurried: bool
) -> subprocess.Popen[bytes]:
    words = ["up", "--ephemeral", "--quiet", "--data", str(data), "--scale", SCALE]
    environment = {
        **os.environ,
        "COLUMNS": "200",
        "ESHOP_CRASH_POINTS": str(crash_points),
        CONTROL: str(folder / "control"),
        SEED: str(seed),
        HURRIED: "1" if is_hurried else "",
    }
    # Kept compiled, as a user's machine keeps it: every restart would compile all of it again.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with (folder / "up.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.faults.harness.launch", *words],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=Path(__file__).parents[3],
        )


async def _until_ready(world: World) -> None:
    def is_ready() -> bool:
        code = world.launcher.poll()
        assert code is None, f"the shop ended with {code}:\n{(world.folder / 'up.log').read_text()[-3000:]}"
        record = DataFolder(world.shop.data).record()
        return record is not None and record.ready

    await until(is_ready, READY_SECONDS_MAX, "the shop is ready")


async def _make_harmless(world: World) -> None:
    """Let nothing that the harness holds be in the way of the end."""
    with suppress(NotShown, OSError, TimeoutError):
        for name in world.names("orders", "payments", "projections", "gateway"):
            await world.tell("release", name=name)
        for link in await world.tell("links"):
            await world.tell("mode", link=link, mode=Mode.OPEN)
    for record in world.records().values():
        with suppress(psutil.Error):
            if record.pid:
                world.send_family(record.name, signal.SIGCONT)
    assert world.control is not None
    world.control[1].close()


def _end(launcher: subprocess.Popen[bytes]) -> None:
    assert launcher.stdin is not None
    launcher.stdin.close()
    try:
        launcher.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        launcher.kill()  # the guardian ends what is left
        launcher.wait()


def _mount_disk(path: Path) -> bool:
    """Give Postgres a disk of its own that can be too small; tell whether this system lets us."""
    path.mkdir()
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        return False
    return _mount("-t", "tmpfs", "-o", f"size={DISK_BYTES}", "eshop-faults", str(path))


def disk_used_bytes(path: Path) -> int:
    """Return how much of Postgres' own disk is in use."""
    disk = os.statvfs(path)
    return (disk.f_blocks - disk.f_bfree) * disk.f_frsize


def resize_disk(path: Path, size_bytes: int) -> bool:
    """Make Postgres' own disk smaller or larger; tell whether there was room for what is on it."""
    return _mount("-o", f"remount,size={size_bytes}", str(path))


def _mount(*words: str) -> bool:
    return subprocess.run(("mount", *words), check=False, capture_output=True).returncode == 0


def _umount(path: Path) -> None:
    subprocess.run(("umount", "--lazy", str(path)), check=False, capture_output=True)
