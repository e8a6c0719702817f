"""The proxies do to bytes what their names say: the network faults rest on them."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from tests.faults.harness.links import HOST, SLOW_SECONDS, Link, Mode

NOTHING_SECONDS = 0.3
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Echo:
    """A server that sends back what it gets, and remembers it."""

    def __init__(self) -> None:
        self.got = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                self.got += data
                writer.write(data)
        writer.close()


Connect = Callable[[], Awaitable[Streams]]


@asynccontextmanager
async def linked() -> AsyncIterator[tuple[Link, Echo, Connect]]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, HOST, 0)
    link = Link("client>echo", server.sockets[0].getsockname()[1], random.Random(1))
    await link.open()
    clients: list[Streams] = []

    async def connect() -> Streams:
        clients.append(await asyncio.open_connection(HOST, link.port))
        return clients[-1]

    try:
        yield link, echo, connect
    finally:
        link.close()
        for _, writer in clients:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        server.close()
        await server.wait_closed()
        while asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.sleep(0.01)


async def said(client: Streams, data: bytes) -> bytes:
    client[1].write(data)
    return await asyncio.wait_for(client[0].readexactly(len(data)), 10)


async def nothing_comes(client: Streams) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client[0].read(1), NOTHING_SECONDS)


async def is_reset(client: Streams) -> None:
    try:
        assert await asyncio.wait_for(client[0].read(1), 5) == b""
    except ConnectionError:
        return


async def test_open_link_carries_everything_both_ways() -> None:
    async with linked() as (link, _, connect):
        client = await connect()
        large = random.Random(2).randbytes(3_000_000)
        assert await said(client, large) == large
        assert link.carried_bytes == 2 * len(large)
        assert link.connections() == 1


async def test_cut_link_carries_nothing_and_its_connections_are_reset_in_the_end() -> None:
    async with linked() as (link, echo, connect):
        client = await connect()
        assert await said(client, b"before") == b"before"
        link.set_mode(Mode.CUT)
        client[1].write(b"lost")
        await nothing_comes(client)
        late = await connect()
        late[1].write(b"lost too")
        await nothing_comes(late)
        assert echo.got == b"before"
        link.set_mode(Mode.OPEN)
        await is_reset(client)
        again = await connect()
        assert await said(again, b"after") == b"after"


async def test_one_way_link_loses_answers_only() -> None:
    async with linked() as (link, echo, connect):
        client = await connect()
        assert await said(client, b"before") == b"before"
        link.set_mode(Mode.ONE_WAY)
        client[1].write(b"heard")
        await nothing_comes(client)
        assert echo.got == b"beforeheard"
        link.set_mode(Mode.OPEN)
        await is_reset(client)


async def test_slow_link_keeps_the_order() -> None:
    async with linked() as (link, _, connect):
        client = await connect()
        link.set_mode(Mode.SLOW)
        begun = time.monotonic()
        for number in range(3):
            assert await said(client, bytes([number]) * 100) == bytes([number]) * 100
        assert time.monotonic() - begun > 6 * SLOW_SECONDS / 2


async def test_lossy_link_delays_or_breaks_and_never_garbles() -> None:
    broken = 0
    async with linked() as (link, _, connect):
        link.set_mode(Mode.LOSSY)
        for _ in range(20):
            client = await connect()
            try:
                for number in range(10):
                    chunk = bytes([number]) * 50
                    assert await said(client, chunk) == chunk
            except (ConnectionError, asyncio.IncompleteReadError):
                broken += 1
    assert 0 < broken < 20


async def test_who_does_not_listen_is_refused_until_it_does() -> None:
    async with linked() as (link, _, connect):
        there, link.target_port = link.target_port, 1
        await is_reset(await connect())
        with pytest.raises(ConnectionRefusedError):
            await connect()
        link.target_port = there
        await until_carried(connect)


async def test_closed_link_refuses_and_listens_on_the_same_port_again() -> None:
    async with linked() as (link, _, connect):
        client = await connect()
        assert await said(client, b"before") == b"before"
        link.set_mode(Mode.CLOSED)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(client[0].read(1), 5)
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError):
                await connect()
        link.set_mode(Mode.OPEN)
        await until_carried(connect)


async def test_link_that_resets_takes_requests_and_never_replies() -> None:
    async with linked() as (link, echo, connect):
        client = await connect()
        assert await said(client, b"before") == b"before"
        link.set_mode(Mode.RESET)
        client[1].write(b"on its way")
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(client[0].read(1), 5)
        assert echo.got == b"beforeon its way"
        for _ in range(20):
            with pytest.raises(ConnectionError):
                await said(await connect(), b"x")
        requests = echo.got.count(b"x")
        assert 0 < requests < 20, "some connections are reset at once, some when the reply is due"
        link.set_mode(Mode.OPEN)
        await until_carried(connect)


async def until_carried(connect: Connect) -> None:
    """Return when a new connection is carried."""
    async with asyncio.timeout(5):
        while True:
            with suppress(ConnectionRefusedError):
                assert await said(await connect(), b"again") == b"again"
                return
