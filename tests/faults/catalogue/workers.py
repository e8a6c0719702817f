"""Workers beside those of the shop: they come and go, run an old version, or have another clock."""

import asyncio
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

from eshop.cluster.ports import free_port
from eshop.cluster.probes import http_is_ready
from tests.faults.harness.fault import Fault, Fired, Scene
from tests.faults.harness.world import NotShown, World

ROOT = Path(__file__).parents[3]
VERSIONS = ROOT / "tests" / "integration" / "versions"
READY_SECONDS_MAX = 40.0
END_SECONDS_MAX = 20.0
STORM_ROUNDS = 4
#: How long a guest works beside the others.
TOGETHER_SECONDS = 10.0


@asynccontextmanager
async def guest(
    world: World, kind: str, sources: Path = ROOT, *, ready_seconds_max: float = READY_SECONDS_MAX
) -> AsyncIterator[bool]:
    """Run one more worker of a kind; yield whether it became ready in time."""
    taken: set[int] = set()
    web = free_port(taken)
    env: dict[str, str] = await world.tell("environment", name=kind, changes={}) | {
        "ESHOP_WEB_LISTEN": f"127.0.0.1:{web}",
        "ESHOP_GRPC_LISTEN": f"127.0.0.1:{free_port(taken)}",
        "ESHOP_DATA": str(world.folder / f"guest-{web}"),
    }
    for name in ("ESHOP_CRASH_POINTS", "ESHOP_INSTANCE"):
        env.pop(name, None)  # they are for the shop's own workers
    with (world.log(kind).parent / f"guest-{kind}.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "faust", "-L", "uvloop", "-A", f"eshop.{kind}", "worker", "-l", "info"),
            env=env,
            cwd=sources,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        end = time.monotonic() + ready_seconds_max
        is_ready = False
        while not is_ready and process.returncode is None and time.monotonic() < end:
            is_ready = await asyncio.to_thread(http_is_ready, web)
        yield is_ready
        if process.returncode is not None:
            raise NotShown(f"one more {kind} worker ended by itself with {process.returncode}")
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), END_SECONDS_MAX)
    except TimeoutError:
        process.kill()
        await process.wait()


class RebalanceStorm(Fault):
    """One more worker joins and leaves, again and again."""

    def __init__(self, kind: str) -> None:
        self.name = f"{kind}: a worker added and removed {STORM_ROUNDS} times"
        self._kind = kind

    async def fire(self, scene: Scene) -> Fired:
        ready = 0
        for _ in range(STORM_ROUNDS):
            async with guest(scene.world, self._kind) as is_ready:
                ready += is_ready
        if not ready:
            raise NotShown(f"no additional {self._kind} worker ever became ready")
        return Fired(evidence=f"{ready} of {STORM_ROUNDS} became ready before they left")


class OldWorker(Fault):
    """A worker of the first version works beside those of this one."""

    def __init__(self, kind: str) -> None:
        self.name = f"{kind}: an old worker beside the new ones"
        self._kind = kind

    def missing(self, _world: World) -> str | None:
        return None if _first_version() else "there are no sources of an old version"

    async def fire(self, scene: Scene) -> Fired:
        archive = _first_version()
        assert archive is not None
        sources = scene.world.folder / "old"
        await asyncio.to_thread(_unpack, archive, sources)
        async with guest(scene.world, self._kind, sources) as is_ready:
            if not is_ready:
                raise NotShown(f"the old {self._kind} worker was not ready")
            await scene.probe.served(READY_SECONDS_MAX)
            await asyncio.sleep(TOGETHER_SECONDS)
        return Fired(evidence=f"{archive.name}, {TOGETHER_SECONDS:.0f} s side by side")


def _first_version() -> Path | None:
    return next(iter(sorted(VERSIONS.glob("*.tar.gz"))), None)


def _unpack(archive: Path, target: Path) -> None:
    if not target.exists():
        with tarfile.open(archive) as packed:
            packed.extractall(target, filter="data")


class ClockOff(Fault):
    """One worker's machine is an hour ahead. Its time that only counts on is right, as a machine's is."""

    def __init__(self, kind: str) -> None:
        self.name = f"{kind}: a clock an hour ahead"
        self._kind = kind

    def missing(self, _world: World) -> str | None:
        return None if _faketime() else "libfaketime is not installed"

    async def fire(self, scene: Scene) -> Fired:
        world = scene.world
        name = scene.rng.choice(world.names(self._kind))
        library = _faketime()
        assert library is not None
        log_at = world.log(name).stat().st_size
        shift = {"LD_PRELOAD": str(library), "FAKETIME": "+1h", "DONT_FAKE_MONOTONIC": "1"}
        try:
            await self._start_again(world, name, shift)
            await scene.probe.served(READY_SECONDS_MAX)
            await asyncio.sleep(TOGETHER_SECONDS)
            told = _hour_told(world.log_part(name, log_at))
        finally:
            unshift = dict.fromkeys(shift)
            gone = await self._start_again(world, name, unshift, wait=False)
        return Fired(((name, gone),), evidence=f"{name} logged {told}")

    async def _start_again(
        self, world: World, name: str, changes: Mapping[str, str | None], *, wait: bool = True
    ) -> int:
        await world.tell("environment", name=name, changes=changes)
        gone = world.send(name, signal.SIGTERM)
        if wait:
            await world.until_back(name, gone)
        return gone


def _faketime() -> Path | None:
    """Return the library that shifts a process's clock: a Python package's, or the system's."""
    found = find_spec("libfaketime")
    packaged = Path(found.origin).parent if found is not None and found.origin else None
    places = [packaged.rglob("libfaketime.so.1")] if packaged else []
    places.append(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not sys.platform.startswith("linux"):
        return None
    return next((library for place in places for library in place), None)


def _hour_told(log: str) -> str:
    """Return the last time in a log that is more than half an hour ahead of this process."""
    stamps = re.findall(r"^\[?(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)", log, re.MULTILINE)
    ahead = time.time() + 1_800
    for stamp in reversed(stamps):
        if time.mktime(time.strptime(stamp, "%Y-%m-%d %H:%M:%S")) > ahead:
            return str(stamp)
    raise NotShown("the worker's log shows no time that is ahead")
