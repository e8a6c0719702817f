"""What can be wrong with a database: rights, columns, rows and snapshots held, connections, a full disk."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

import psycopg2
import redis.asyncio as redis

from eshop.cluster.folder import DataFolder
from eshop.contracts.services import SERVICES
from tests.faults.harness.fault import Fault, Fired, Scene
from tests.faults.harness.world import DISK_BYTES, NotShown, World, disk_used_bytes, resize_disk

WRONG_SECONDS = 8.0
#: Longer than lock_timeout and statement_timeout.
HELD_SECONDS = 12.0
#: As long as an audit or a dump of a large shop takes.
SNAPSHOT_SECONDS = 60.0
SERVED_SECONDS_MAX = 30.0
#: What an order may take behind a snapshot, compared with one before it, and on a busy machine anyway.
SLOWER_TIMES_MAX = 4.0
SLOWER_SECONDS = 3.0
CONNECTIONS_MAX = 400
NO_SPACE = "No space left on device"


class Damaged(Fault):
    """A statement makes a service's work impossible, another one mends it: nothing may be parked."""

    def __init__(self, what: str, service: str, damage: str, mend: str) -> None:
        self.name = f"{service}: {what}"
        self._service = service
        self._damage, self._mend = damage, mend

    async def fire(self, scene: Scene) -> Fired:
        world = scene.world
        parked = await self._parked(world)
        logs = {name: world.log(name).stat().st_size for name in world.names(self._service)}
        await asyncio.to_thread(world.execute, self._service, self._damage)
        try:
            await asyncio.sleep(WRONG_SECONDS)
        finally:
            await asyncio.to_thread(world.execute, self._service, self._mend)
        ended_at = time.monotonic()
        retries = sum(world.log_part(name, at).count("tries again") for name, at in logs.items())
        if not retries:
            raise NotShown(f"no {self._service} worker noticed: {self.name}")
        if await self._parked(world) != parked:
            raise NotShown(f"messages were parked because of: {self.name}")
        return Fired(evidence=f"{WRONG_SECONDS:.0f} s, tried again {retries} times", ended_at=ended_at)

    async def _parked(self, world: World) -> int:
        return await world.number(self._service, "SELECT count(*) FROM dead_letters")


class RowHeld(Fault):
    """Somebody holds a user's row for longer than the workers wait for it."""

    name = "a wallet's row held"

    async def fire(self, scene: Scene) -> Fired:
        user = scene.probe.users[scene.rng.randrange(len(scene.probe.users))]
        with scene.world.shop.database("payments") as ask:
            ask("SELECT 1 FROM wallets WHERE user_id = %s FOR UPDATE", user)
            probing = asyncio.create_task(scene.probe.served(120))
            await asyncio.sleep(HELD_SECONDS)
            if probing.done():
                raise NotShown("the order of the user whose wallet is held was final all the same")
            ask.roll_back()
        ended_at = time.monotonic()
        await probing
        return Fired(evidence=f"{HELD_SECONDS:.0f} s", ended_at=ended_at)


class SnapshotHeld(Fault):
    """Somebody reads both databases in one transaction for a minute: no dead row can be removed meanwhile.

    Orders are served all the while, as soon as before; so they are by a worker that starts meanwhile.
    """

    def __init__(self, restarted: str | None = None) -> None:
        self.name = "a snapshot held" + (f", {restarted} killed meanwhile" if restarted else "")
        self._restarted = restarted

    async def fire(self, scene: Scene) -> Fired:
        before = await scene.probe.seconds_served(SERVED_SECONDS_MAX)
        kills = 0
        with _snapshots(scene.world):
            end = time.monotonic() + SNAPSHOT_SECONDS
            if self._restarted is not None:
                name = scene.rng.choice(scene.world.names(self._restarted))
                gone = scene.world.send(name, signal.SIGKILL)
                await scene.world.until_back(name, gone)
                kills = 1
            while time.monotonic() < end:
                behind = await scene.probe.seconds_served(SERVED_SECONDS_MAX)
                await asyncio.sleep(1)
        if behind > before * SLOWER_TIMES_MAX + SLOWER_SECONDS:
            raise NotShown(f"orders took {behind:.1f} s behind a snapshot, {before:.1f} s before")
        told = f"{SNAPSHOT_SECONDS:.0f} s, orders took {before:.2f} s before and {behind:.2f} s in the end"
        return Fired(kills=kills, evidence=told)


@contextmanager
def _snapshots(world: World) -> Iterator[None]:
    """Hold a snapshot of each database; raise NotShown if one was ended before."""
    with ExitStack() as stack:
        held = [stack.enter_context(world.shop.database(service)) for service in SERVICES]
        for ask in held:
            ask("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            ask("SELECT count(*) FROM outbox")
        yield
        try:
            for ask in held:
                ask("SELECT count(*) FROM outbox")
        except psycopg2.Error as error:
            raise NotShown(f"a snapshot was ended early: {error}") from error


class NoConnections(Fault):
    """Postgres has no connection left for anybody, and all workers have just lost theirs."""

    name = "postgres out of connections"

    async def fire(self, scene: Scene) -> Fired:
        port = scene.world.shop.ports["postgres"]["postgres"]
        async with _all_connections(port) as taken:
            await asyncio.to_thread(
                scene.world.execute,
                "orders",
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name LIKE 'eshop-%'",
            )
            await asyncio.to_thread(_take, port, taken)
            await asyncio.sleep(WRONG_SECONDS)
        return Fired(evidence=f"{len(taken)} held for {WRONG_SECONDS:.0f} s")


@asynccontextmanager
async def _all_connections(port: int) -> AsyncIterator[list["psycopg2.extensions.connection"]]:
    taken: list[psycopg2.extensions.connection] = []
    try:
        await asyncio.to_thread(_take, port, taken)
        yield taken
    finally:
        for connection in taken:
            connection.close()


def _take(port: int, taken: list["psycopg2.extensions.connection"]) -> None:
    """Connect as a service does until Postgres refuses."""
    for _ in range(CONNECTIONS_MAX):
        try:
            taken.append(psycopg2.connect(f"postgresql://orders_app:orders_app@127.0.0.1:{port}/orders"))
        except psycopg2.OperationalError:
            return
    raise NotShown(f"Postgres has more than {CONNECTIONS_MAX} connections")


class Flushed(Fault):
    """The cache forgets everything."""

    name = "valkey flushed"

    async def fire(self, scene: Scene) -> Fired:
        port = scene.world.shop.ports["valkey"]["redis"]
        async with redis.Redis(port=port) as client:
            keys = await client.dbsize()
            await client.flushall()
        if not keys:
            raise NotShown("the cache was empty")
        return Fired(evidence=f"{keys} keys")


class DiskFull(Fault):
    """Postgres' disk is full to the last byte."""

    name = "disk full under postgres"

    def missing(self, world: World) -> str | None:
        return None if world.has_own_disk else "only root may give Postgres a disk of its own"

    async def fire(self, scene: Scene) -> Fired:
        world = scene.world
        disk = DataFolder(world.shop.data).path / "postgres"
        log_at = world.log("postgres").stat().st_size
        try:
            end = time.monotonic() + WRONG_SECONDS
            while time.monotonic() < end:
                used = disk_used_bytes(disk)  # again and again: something is freed now and then
                await asyncio.to_thread(resize_disk, disk, used)
                await asyncio.sleep(0.1)
        finally:
            resize_disk(disk, DISK_BYTES)
        ended_at = time.monotonic()
        if NO_SPACE not in world.log_part("postgres", log_at):
            raise NotShown("Postgres did not notice that its disk is full")
        return Fired(evidence=f"{WRONG_SECONDS:.0f} s at {used // 1024**2} MiB", ended_at=ended_at)
