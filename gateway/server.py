"""The server and its stop: drain, close the listener, finish requests, end the feeds."""

import asyncio
import signal
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from aiohttp import web

from gateway.app_keys import HEALTH
from gateway.http.protocol import ProblemRunner

#: For requests in flight once the listener is closed: more than a call's deadline.
SHUTDOWN_SECONDS_MAX = 12.0
#: Options of every server: request bodies are not decompressed (they are refused), and after a response at
#: most 2 s of further input are discarded.
SERVER_OPTIONS: Mapping[str, Any] = MappingProxyType({"auto_decompress": False, "lingering_time": 2.0})


async def serve(app: web.Application, host: str, port: int, drain_seconds: float) -> None:
    """Serve until SIGTERM or SIGINT.

    Then readiness is 503 for ``drain_seconds``, while new connections are served, so that load balancers
    notice before any request is refused. A second signal ends the drain time. After it the listener closes,
    requests in flight end, and sockets are closed with 1001.
    """
    leave = asyncio.Event()
    hurry = asyncio.Event()

    def asked_to_leave() -> None:
        (hurry if leave.is_set() else leave).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_leave)
    runner = ProblemRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS_MAX, **SERVER_OPTIONS)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        await leave.wait()
        app[HEALTH].stop()
        await _until(hurry, drain_seconds)
    finally:
        await runner.cleanup()


async def _until(event: asyncio.Event, seconds_max: float) -> None:
    try:
        async with asyncio.timeout(seconds_max):
            await event.wait()
    except TimeoutError:
        return
