"""Processes that end, or stand still: at random, tidily, and at each named crash point."""

import asyncio
import signal
import time

from eshop.contracts.services import SERVICES
from tests.faults.harness.fault import AWAY_SECONDS, Fault, Fired, Scene
from tests.faults.harness.world import NotShown, World, until

KINDS = ("orders", "payments", "projections", "gateway", "kafka", "postgres", "valkey")
POINT_SECONDS_MAX = 40.0
TAKEN_OVER_SECONDS_MAX = 45.0


class CrashPoint(Fault):
    """A worker kills itself at a boundary between two of its steps."""

    def __init__(self, kind: str, point: str) -> None:
        self.name = f"crash point {kind}.{point}"
        self._kind = kind
        self._point = point

    async def fire(self, scene: Scene) -> Fired:
        world = scene.world
        before = {name: world.pid(name) for name in world.names(self._kind)}
        armed = world.crash_points / f"{self._kind}.{self._point}"
        armed.touch()
        try:
            await until(lambda: not armed.exists(), POINT_SECONDS_MAX, f"{self.name} is hit")
        finally:
            armed.unlink(missing_ok=True)
        hit_at = time.monotonic()

        def gone() -> list[tuple[str, int]]:
            records = world.records()
            return [(name, pid) for name, pid in before.items() if records[name].pid != pid]

        victims = await until(gone, 10, f"who hit {self.name} is gone")
        world.ended_by_us.update(name for name, _ in victims)
        return Fired(tuple(victims), kills=1, evidence=f"{victims[0][0]} hit it", ended_at=hit_at)


class Kill(Fault):
    """SIGKILL, of one process or of several at once."""

    def __init__(self, *kinds: str) -> None:
        self.name = f"SIGKILL of {kinds[0] if len(kinds) == 1 else f'{len(kinds)} processes at once'}"
        self.kinds = kinds

    async def fire(self, scene: Scene) -> Fired:
        world, chosen = scene.world, list[str]()
        for kind in self.kinds:
            names = [name for name in world.names(kind) if name not in chosen]
            chosen.append(scene.rng.choice(names))
        ended_at = time.monotonic()
        victims = tuple((name, world.send(name, signal.SIGKILL)) for name in chosen)
        return Fired(victims, kills=len(victims), evidence=", ".join(chosen), ended_at=ended_at)


class End(Fault):
    """The signal that asks a process to end tidily; for Postgres, the one that has it end at once."""

    def __init__(self, kind: str, number: signal.Signals = signal.SIGTERM) -> None:
        self.name = f"{number.name} of {kind}"
        self._kind = kind
        self._number = number

    async def fire(self, scene: Scene) -> Fired:
        name = scene.rng.choice(scene.world.names(self._kind))
        ended_at = time.monotonic()
        pid = scene.world.send(name, self._number)
        return Fired(((name, pid),), evidence=name, ended_at=ended_at)


class Stop(Fault):
    """SIGSTOP for longer than session and lease, then SIGCONT: somebody else takes over meanwhile.

    Of the workers the one stands still that publishes the outbox: it wakes up as a zombie.
    """

    def __init__(self, kind: str) -> None:
        self.name = f"SIGSTOP and SIGCONT of {kind}"
        self._kind = kind

    async def fire(self, scene: Scene) -> Fired:
        world = scene.world
        name = await self._victim(scene)
        begun, taken_over_seconds = time.monotonic(), 0.0
        world.send_family(name, signal.SIGSTOP)
        try:
            if self._kind in SERVICES:
                taken_over_seconds = await scene.probe.seconds_served(TAKEN_OVER_SECONDS_MAX)
            await asyncio.sleep(AWAY_SECONDS - (time.monotonic() - begun))
        except TimeoutError:
            raise NotShown(f"nobody took over from {name} in {TAKEN_OVER_SECONDS_MAX:.0f} s") from None
        finally:
            world.send_family(name, signal.SIGCONT)
        told = f", taken over after {taken_over_seconds:.1f} s" if taken_over_seconds else ""
        evidence = f"{name}, {time.monotonic() - begun:.0f} s{told}"
        return Fired(evidence=evidence, taken_over_seconds=taken_over_seconds)

    async def _victim(self, scene: Scene) -> str:
        if self._kind in SERVICES and (holder := await lease_holder(scene.world, self._kind)):
            return holder
        return scene.rng.choice(scene.world.names(self._kind))


async def lease_holder(world: World, service: str) -> str | None:
    """Return the name of the worker that publishes a service's outbox."""
    (row,) = await world.ask(service, "SELECT holder FROM relay_lease")
    pids = {str(world.records()[name].pid): name for name in world.names(service)}
    return pids.get(row.holder.rpartition(":")[2])
