"""A gateway's process from its start to its end: what it says and serves after SIGTERM."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import WSCloseCode, WSMsgType

from tests.support.fake_services import TOKEN, FakeServices

pytest_plugins = ["tests.support.gateway"]

ANN = {"X-User-Id": "ann"}


class Gateway:
    """A running process; every request is made on a connection of its own."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.base = f"http://127.0.0.1:{port}"

    async def get(self, path: str) -> int:
        async with (
            aiohttp.ClientSession(headers=ANN) as session,
            session.get(self.base + path) as response,
        ):
            await response.read()
            return response.status

    async def until(self, path: str, status: int) -> None:
        async with asyncio.timeout(60):
            while True:
                try:
                    if await self.get(path) == status:
                        return
                except aiohttp.ClientConnectionError:
                    assert self.process.returncode is None
                await asyncio.sleep(0.02)


Start = Callable[[float], AbstractAsyncContextManager[Gateway]]


@pytest.fixture
def start(services: FakeServices, tmp_path: Path, unused_tcp_port_factory: Callable[[], int]) -> Start:
    """Return how to start a gateway with a drain time."""

    @asynccontextmanager
    async def started(drain_seconds: float) -> AsyncIterator[Gateway]:
        port = unused_tcp_port_factory()
        env = os.environ | {
            "ESHOP_WEB_LISTEN": f"127.0.0.1:{port}",
            "ESHOP_ORDERS_GRPC": services.address,
            "ESHOP_PAYMENTS_GRPC": services.address,
            "ESHOP_SERVICE_TOKEN": TOKEN,
            "ESHOP_KAFKA": f"127.0.0.1:{unused_tcp_port_factory()}",
            "ESHOP_REDIS_URL": f"redis://127.0.0.1:{unused_tcp_port_factory()}/0",
            "ESHOP_DRAIN_SECONDS": str(drain_seconds),
        }
        with (tmp_path / "gateway.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gateway", env=env, stdout=log, stderr=log
            )
        try:
            gateway = Gateway(process, port)
            await gateway.until("/health/ready", 200)
            yield gateway
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    return started


async def test_who_is_asked_to_leave_says_so_and_still_serves_for_a_while(
    start: Start, services: FakeServices
) -> None:
    async with start(60) as gateway, aiohttp.ClientSession(headers=ANN) as session:
        socket = await session.ws_connect(f"{gateway.base}/api/v1/ws")
        assert (await socket.receive_json())["type"] == "hello"
        gateway.process.send_signal(signal.SIGTERM)
        await gateway.until("/health/ready", 503)
        assert await gateway.get("/api/v1/orders") == 200, "a new connection is served"
        assert not socket.closed
        held = services.does.hold["ListOrders"] = asyncio.Event()
        services.does.arrived["ListOrders"] = asyncio.Event()
        waiting = asyncio.create_task(gateway.get("/api/v1/orders"))
        await services.does.arrived["ListOrders"].wait()
        gateway.process.send_signal(signal.SIGTERM)  # a second one ends the drain time
        message = await socket.receive(timeout=30)
        assert (message.type, socket.close_code) == (WSMsgType.CLOSE, WSCloseCode.GOING_AWAY)
        with pytest.raises(aiohttp.ClientConnectionError):
            await gateway.get("/health/live")
        held.set()
        assert await waiting == 200, "what was in flight ends"
        assert await asyncio.wait_for(gateway.process.wait(), 30) == 0


async def test_without_a_drain_time_it_leaves_at_once(start: Start) -> None:
    async with start(0) as gateway:
        gateway.process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(gateway.process.wait(), 30) == 0
