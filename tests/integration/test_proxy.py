"""The proxy of the containers, as a real HAProxy: its own errors, what it keeps inside, whom it asks."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from gateway.http.problems import TYPE_PREFIX
from tests.support.worker_process import ROOT

HAPROXY = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
pytestmark = pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed")


@dataclass
class Backend:
    """A gateway as the proxy sees one."""

    port: int
    ready: int = 200
    asked: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        if request.path == "/health/ready":
            return web.Response(status=self.ready)
        self.asked.append(request.path)
        if request.path == "/broken":
            assert request.transport is not None
            request.transport.abort()
        return web.Response(text="from the gateway")


@dataclass(frozen=True)
class Proxy:
    """The running proxy, with one gateway behind it."""

    base: str
    health: str
    gateway: Backend
    http: aiohttp.ClientSession

    async def get(self, path: str) -> tuple[int, str, str]:
        async with self.http.get(self.base + path) as response:
            return response.status, response.content_type, await response.text()

    async def until(self, path: str, status: int) -> None:
        async with asyncio.timeout(30):
            while (await self.get(path))[0] != status:
                await asyncio.sleep(0.05)


@pytest.fixture
async def proxy(unused_tcp_port_factory: Callable[[], int], tmp_path: Path) -> AsyncIterator[Proxy]:
    """Start HAProxy over its real file, with this machine's addresses in place of the network's names."""
    front, projections, health, back = (unused_tcp_port_factory() for _ in range(4))
    gateway = Backend(back)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", gateway.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", back).start()
    text = (ROOT / "docker/haproxy.cfg").read_text()
    for pattern, replacement in (
        (r"bind :8000", f"bind 127.0.0.1:{front}"),
        (r"bind :6068", f"bind 127.0.0.1:{projections}"),
        (r"bind 127.0.0.1:8404", f"bind 127.0.0.1:{health}"),
        (r"server-template (\w+) 16 \S+", rf"server \1 127.0.0.1:{back}"),
        (r" resolvers network init-addr none", ""),
        (r"inter 2s", "inter 100ms"),
    ):
        text, replaced = re.subn(pattern, replacement, text)
        assert replaced, pattern
    file = tmp_path / "haproxy.cfg"
    file.write_text(text)
    process = await asyncio.create_subprocess_exec(
        str(HAPROXY), "-db", "-f", str(file), stdout=asyncio.subprocess.DEVNULL
    )
    try:
        async with aiohttp.ClientSession() as http:
            running = Proxy(f"http://127.0.0.1:{front}", f"http://127.0.0.1:{health}", gateway, http)
            async with asyncio.timeout(30):
                while True:
                    try:
                        await running.until("/", 200)
                        break
                    except aiohttp.ClientConnectionError:
                        await asyncio.sleep(0.05)
            yield running
    finally:
        process.terminate()
        await process.wait()
        await runner.cleanup()


@pytest.mark.parametrize(
    "path", ["/metrics", "/health/ready", "/health", "//health/live", "/%6detrics", "/Metrics"]
)
async def test_numbers_and_health_are_not_for_the_world(proxy: Proxy, path: str) -> None:
    proxy.gateway.asked.clear()
    status, content_type, text = await proxy.get(path)
    assert (status, content_type) == (404, "application/problem+json")
    assert '"code":"not-found"' in text
    assert proxy.gateway.asked == []


async def test_requests_are_passed_on(proxy: Proxy) -> None:
    assert await proxy.get("/api/v1/orders") == (200, "text/plain", "from the gateway")
    assert await proxy.get("/metricsandmore") == (200, "text/plain", "from the gateway")


async def test_proxys_own_errors_are_problems(proxy: Proxy) -> None:
    async with proxy.http.get(proxy.base + "/broken") as response:
        assert (response.status, response.content_type) == (502, "application/problem+json")
    proxy.gateway.ready = 503
    await proxy.until("/api/v1/orders", 503)
    async with proxy.http.get(proxy.base + "/api/v1/orders") as response:
        problem = await response.json(content_type="application/problem+json")
        assert response.headers["Retry-After"] == "1"
    assert {"type", "title", "status", "detail", "code"} == set(problem)
    assert (problem["type"], problem["status"]) == (TYPE_PREFIX + problem["code"], 503)


async def test_health_of_the_proxy_is_whether_it_has_a_gateway(proxy: Proxy) -> None:
    async def status() -> int:
        async with proxy.http.get(proxy.health + "/ready") as response:
            return response.status

    assert await status() == 200
    proxy.gateway.ready = 503
    async with asyncio.timeout(30):
        while await status() != 503:
            await asyncio.sleep(0.05)
