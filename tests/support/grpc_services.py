"""A service's gRPC in this process, as a caller meets it, and eyes and hands for its database."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc import aio

from eshop.clients.channel import credentials, open_channel
from eshop.cluster.ports import free_port
from eshop.rpc.server import GrpcServer
from eshop.store.unit_of_work import Store

TOKEN = "a-token"


@asynccontextmanager
async def served_at(name: str, add: Callable[[aio.Server], None]) -> AsyncIterator[str]:
    """Serve a service, and yield its address."""
    address = f"127.0.0.1:{free_port(set())}"
    server = GrpcServer(address, TOKEN, service_names=[name], with_reflection=True)
    add(server.server)
    await server.start()
    try:
        yield address
    finally:
        await server.stop()


@asynccontextmanager
async def served(name: str, add: Callable[[aio.Server], None]) -> AsyncIterator[aio.Channel]:
    """Serve a service, and yield a channel to it."""
    async with served_at(name, add) as address, open_channel(address) as channel:
        yield channel


class Caller:
    """Calls a service's methods by name, with the token."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub

    def __getattr__(self, method: str) -> Callable[..., Any]:
        return lambda request: getattr(self._stub, method)(request, metadata=credentials(TOKEN), timeout=20)


async def code_of(call: Awaitable[Any]) -> grpc.StatusCode:
    """Return how a call ends."""
    try:
        await call
    except aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def rows(store: Store[Any], *tables: str) -> list[int]:
    """Return how many rows there are in each table."""
    counted = [await store.database.transact(_count(table)) for table in tables]
    return [found[0].count for found in counted]


def _count(table: str) -> Callable[[Any], Awaitable[list[Any]]]:
    return lambda session: session.run_sql(f"SELECT count(*) FROM {table}")


@asynccontextmanager
async def holding(store: Store[Any], sql: str) -> AsyncIterator[None]:
    """Hold what a statement locks, as another transaction."""
    held, done = asyncio.Event(), asyncio.Event()

    async def hold(session: Any) -> None:
        await session.run_sql(sql)
        held.set()
        await done.wait()

    holder = asyncio.create_task(store.database.transact(hold))
    await held.wait()
    try:
        yield
    finally:
        done.set()
        await holder


async def until_waiting(store: Store[Any]) -> None:
    """Return when a statement waits for a lock."""
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    async with asyncio.timeout(10):
        while not await store.database.run_alone(lambda session: session.run_sql(waiting)):
            await asyncio.sleep(0.01)
