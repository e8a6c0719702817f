"""Fixtures of a running gateway before services in memory. A test module asks for them as a plugin."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr
from pytest_aiohttp.plugin import AiohttpClient

from eshop.contracts.services import SERVICES
from eshop.settings import Settings
from gateway.app import create_app
from gateway.cache import MemoryStore
from gateway.http.protocol import ProblemRunner
from gateway.server import SERVER_OPTIONS
from tests.support.fake_services import TOKEN, FakeServices


class GatewayServer(TestServer):
    """A server as the gateway's process makes one."""

    async def _make_runner(self, **options: Any) -> web.AppRunner:
        return ProblemRunner(self.app, **options)


@pytest.fixture
async def services() -> AsyncIterator[FakeServices]:
    """Both services, answering."""
    running = FakeServices()
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
def settings(services: FakeServices, unused_tcp_port_factory: Callable[[], int]) -> Settings:
    """A gateway's settings: the fakes, and no Kafka."""
    addresses: dict[str, Any] = {f"{service}_grpc": services.address for service in SERVICES}
    return Settings(
        **addresses,
        service_token=SecretStr(TOKEN),
        kafka=f"127.0.0.1:{unused_tcp_port_factory()}",
        redis_url=SecretStr(f"redis://127.0.0.1:{unused_tcp_port_factory()}/0"),
        allowed_origins="https://shop.example",
    )


@pytest.fixture
def store() -> MemoryStore:
    """The cache's store."""
    return MemoryStore()


@pytest.fixture
async def client(settings: Settings, store: MemoryStore, aiohttp_client: AiohttpClient) -> Any:
    """A client of a running gateway; it is ann unless it says otherwise."""
    server = GatewayServer(create_app(settings, store))
    await server.start_server(**SERVER_OPTIONS)
    return await aiohttp_client(server, headers={"X-User-Id": "ann"})
