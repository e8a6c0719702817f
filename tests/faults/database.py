"""What can be wrong with a database: rights, columns, rows that are held, no connections, a full disk."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg2
import redis.asyncio as redis

from eshop.cluster.folder import DataFolder
from tests.faults.scene import Fault, Fired, Scene
from tests.faults.world import DISK_BYTES, NotShown, World, disk_used_bytes, resize_disk

WRONG_SECONDS = 8.0
#: Longer than lock_timeout and statement_timeout.
HELD_SECONDS = 12.0
CONNECTIONS_MAX = 400
NO_SPACE = "No space left on device"


class Damaged(Fault):
    """A statement makes a service's work impossible, another one mends it: nothing may be set aside."""

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
            raise NotShown(f"messages were set aside because of: {self.name}")
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
