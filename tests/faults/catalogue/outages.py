"""The broker is away for a while, and everything that waited for it drains when it is back."""

import asyncio
import time
from dataclasses import dataclass

import aiohttp

from eshop.contracts.services import SERVICES
from tests.faults.harness import judge
from tests.faults.harness.fault import Fault, Fired, Scene
from tests.faults.harness.links import Mode
from tests.faults.harness.world import NotShown, World

WORDS = {Mode.CLOSED: "port closed", Mode.CUT: "silent", Mode.RESET: "resets"}
#: A round may end only when the broker's silence is noticed.
FAILED_SECONDS_MAX = 60.0
POLL_SECONDS = 0.1
FAILURES = "eshop_relay_failures_total "


class BrokerAway(Fault):
    """Nobody reaches Kafka for some seconds, and until a number of relay rounds have failed.

    Clients go on ordering meanwhile. When the broker is back, what waited must drain; see ``Backlog``.
    """

    def __init__(self, mode: Mode, seconds: tuple[float, float], *, failed_rounds: int = 0) -> None:
        least, most = seconds
        self.name = f"broker away for {least:g}{f' to {most:g}' if most > least else ''} s, {WORDS[mode]}"
        self._mode = mode
        self._seconds = seconds
        #: How long it takes in the mean.
        self.seconds = (least + most) / 2
        self._failed_rounds = failed_rounds

    async def fire(self, scene: Scene) -> Fired:
        world = scene.world
        open_link = await world.tell("mode", link="kafka", mode=Mode.OPEN)
        if not open_link["connections"]:
            raise NotShown("nobody speaks to the broker")
        rounds = await FailedRounds.from_now(scene)
        placed, begun = scene.load.placed, time.monotonic()
        world.broker_outages += 1
        async with world.weather(["kafka"], self._mode):
            await asyncio.sleep(scene.rng.uniform(*self._seconds))
            await scene.probe.top_up()  # something waits in each outbox
            failed = await rounds.until(self._failed_rounds)
            backlog = await Backlog.of(world)
        returned_at = time.monotonic()
        await backlog.drained(scene, self.recovery_seconds_max)
        told = (
            f"{returned_at - begun:.0f} s, {scene.load.placed - placed} orders placed, {backlog.new} NEW and"
            f" {backlog.unsent} messages unsent at its return, {failed} rounds failed,"
            f" drained in {time.monotonic() - returned_at:.1f} s"
        )
        return Fired(evidence=told, ended_at=returned_at)


class FailedRounds:
    """How many rounds of each service's relays have failed from now on, by their metrics."""

    def __init__(self, scene: Scene, before: dict[str, float | None]) -> None:
        self._scene = scene
        self._before = before

    @classmethod
    async def from_now(cls, scene: Scene) -> "FailedRounds":
        """Begin to count."""
        return cls(scene, {name: await _failures(scene, name) for name in scene.world.names(*SERVICES)})

    async def until(self, count: int) -> dict[str, int]:
        """Return the failed rounds by service when there are that many; raise NotShown."""
        end = time.monotonic() + FAILED_SECONDS_MAX
        while sum((failed := await self._failed()).values()) < count:
            if time.monotonic() > end:
                raise NotShown(f"{failed} rounds failed in the outage, not {count}")
            await asyncio.sleep(POLL_SECONDS)
        return failed

    async def _failed(self) -> dict[str, int]:
        failed = dict.fromkeys(SERVICES, 0)
        for name, before in self._before.items():
            now = await _failures(self._scene, name)
            if now is not None and before is not None:
                failed[self._scene.world.records()[name].kind] += max(0, int(now - before))
        return failed


@dataclass(frozen=True)
class Backlog:
    """What waited for the broker when it came back at ``until``, in seconds since 1970."""

    until: float
    new: int
    unsent: list[int]

    @classmethod
    async def of(cls, world: World) -> "Backlog":
        """Return what waits now; raise NotShown if that is nothing in one of the outboxes."""
        now = time.time()
        backlog = cls(now, await _new(world, now), await _unsent(world, now))
        if not all(backlog.unsent):
            raise NotShown(f"{backlog.unsent} messages waited for the broker")
        return backlog

    async def drained(self, scene: Scene, seconds_max: float) -> None:
        """Return when all is sent, final, told, and every process ready; raise NotShown."""
        end = time.monotonic() + seconds_max
        while left := await self._left(scene):
            if time.monotonic() > end:
                leases = ", ".join([await _lease(scene.world, service) for service in SERVICES])
                raise NotShown(f"not drained {seconds_max:.0f} s after its return: {left}; {leases}")
            await asyncio.sleep(POLL_SECONDS)
        await judge.until_told(scene.world, scene.listeners, max(0.0, end - time.monotonic()))

    async def _left(self, scene: Scene) -> str:
        new, unsent = await _new(scene.world, self.until), await _unsent(scene.world, self.until)
        asked = {name: await get(scene, name, "/health/ready") for name in scene.world.names(*judge.OURS)}
        away = [
            f"{name} ({text.strip() or status})" for name, (status, text) in asked.items() if status != 200
        ]
        if not new and not any(unsent) and not away:
            return ""
        return f"{new} orders NEW, {unsent} messages unsent, {', '.join(away) or 'none'} not ready"


async def _new(world: World, until: float) -> int:
    sql = "SELECT count(*) FROM orders WHERE status = 'NEW' AND created_at <= to_timestamp(%s)"
    return int((await world.ask("orders", sql, until))[0][0])


async def _unsent(world: World, until: float) -> list[int]:
    sql = "SELECT count(*) FROM outbox WHERE sent_at IS NULL AND created_at <= to_timestamp(%s)"
    return [int((await world.ask(service, sql, until))[0][0]) for service in SERVICES]


async def _lease(world: World, service: str) -> str:
    sql = "SELECT extract(epoch FROM expires_at - clock_timestamp()) AS seconds FROM relay_lease"
    (row,) = await world.ask(service, sql)
    return f"the lease of {service} ends in {row.seconds:.0f} s"


async def _failures(scene: Scene, name: str) -> float | None:
    status, text = await get(scene, name, "/metrics")
    lines = [line for line in text.splitlines() if line.startswith(FAILURES)]
    return float(lines[0].split()[1]) if status == 200 and lines else None


async def get(scene: Scene, name: str, path: str) -> tuple[int, str]:
    """Ask a process of the shop over HTTP; return status and body, status 0 if there was no reply."""
    url = f"http://127.0.0.1:{scene.world.shop.ports[name]['http']}{path}"
    try:
        async with asyncio.timeout(5), scene.session.get(url) as reply:
            return reply.status, await reply.text()
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return 0, repr(error)
