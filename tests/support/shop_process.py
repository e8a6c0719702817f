"""The whole shop as its user starts it, and eyes to look into it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import aiohttp
import psycopg2
from psycopg2.extras import NamedTupleCursor

READY_SECONDS_MAX = 150
STOP_SECONDS_MAX = 60


@dataclass(frozen=True)
class Shop:
    """A running shop with two of everything."""

    data: Path

    def processes(self) -> dict[str, Any]:
        """Return what `eshop status` tells of each process, by name."""
        return {process["name"]: process for process in status_of(self.data)["processes"]}

    @cached_property
    def ports(self) -> dict[str, dict[str, int]]:
        """The ports of each process, which stay what they are."""
        return {name: process["ports"] for name, process in self.processes().items()}

    def gateways(self) -> list[str]:
        """Return the gateways' addresses."""
        names = sorted(name for name in self.ports if name.startswith("gateway"))
        return [f"http://127.0.0.1:{self.ports[name]['http']}" for name in names]

    @contextmanager
    def database(self, name: str) -> Iterator["Query"]:
        """Look into a service's database as its superuser."""
        port = self.ports["postgres"]["postgres"]
        connection = psycopg2.connect(
            f"postgresql://postgres:postgres@127.0.0.1:{port}/{name}", cursor_factory=NamedTupleCursor
        )
        try:
            yield Query(connection)
        finally:
            connection.close()


class Query:
    """One connection, in one transaction until it is rolled back."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __call__(self, sql: str, *parameters: object) -> list[Any]:
        """Run a statement and return its rows."""
        with self._connection.cursor() as cursor:
            cursor.execute(sql, parameters or None)
            return list(cursor.fetchall()) if cursor.description else []

    def fresh(self, sql: str) -> list[Any]:
        """Run a statement in a snapshot of its own."""
        self.roll_back()
        return self(sql)

    def roll_back(self) -> None:
        """End the transaction and let its locks go."""
        self._connection.rollback()


def status_of(data: Path) -> dict[str, Any]:
    """Return what `eshop status` tells; its exit code says whether all is ready, which is told as well."""
    command = [sys.executable, "-m", "eshop.cli.main", "status", "--json", "--data", str(data)]
    told = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    return dict(json.loads(told.stdout)) if told.stdout else {}


@contextmanager
def running_shop(
    *options: str,
    folder: str = "data",
    environment: Mapping[str, str] | None = None,
    prepare: Callable[[Path], None] = lambda _data: None,
) -> Iterator[Shop]:
    """Start a shop as `eshop up` does, and stop it as Ctrl-C does. What it says is in `up.log` beside it.

    ``prepare`` is given the data folder before anything is in it.
    """
    with tempfile.TemporaryDirectory(prefix="eshop-test-", ignore_cleanup_errors=True) as place:
        data = Path(place) / folder
        # Postgres may run as another user of the machine.
        Path(place).chmod(0o755)
        prepare(data)
        log = (Path(place) / "up.log").open("w+", encoding="utf-8")
        command = [sys.executable, "-m", "eshop.cli.main", "up", "--ephemeral", "--data", str(data), *options]
        env = {**(environment or os.environ), "COLUMNS": "200"}
        launcher = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=env)
        try:
            _until_ready(launcher, data, Path(log.name))
            yield Shop(data)
        finally:
            launcher.send_signal(signal.SIGINT)
            launcher.wait(STOP_SECONDS_MAX)
            log.close()


def _until_ready(launcher: subprocess.Popen[bytes], data: Path, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS_MAX
    while time.monotonic() < deadline:
        assert launcher.poll() is None, f"eshop up ended:\n{log.read_text()[-3000:]}"
        if status_of(data).get("ready"):
            return
        time.sleep(0.3)
    raise AssertionError(f"not ready after {READY_SECONDS_MAX} s:\n{log.read_text()[-3000:]}")


class Shopper:
    """One user of the shop, over HTTP and nothing else. Retries like a careful client: with the same key."""

    def __init__(self, session: aiohttp.ClientSession, gateway: str, user_id: str) -> None:
        self._session = session
        self.base = f"{gateway}/api/v1"
        self.user_id = user_id
        self._headers = {"X-User-Id": user_id}

    async def call(self, verb: str, path: str, **options: Any) -> tuple[int, Any, Any]:
        """Return status, headers and body of one call."""
        headers = {**self._headers, **options.pop("headers", {})}
        async with self._session.request(verb, self.base + path, headers=headers, **options) as answer:
            text = await answer.text()
            return answer.status, answer.headers, json.loads(text) if text else None

    async def open_account(self, balance_minor: int) -> None:
        """Open an account with money in it."""
        status, _, body = await self.call("POST", "/accounts", json={})
        assert status == 201, body
        if balance_minor:
            status, _, body = await self.call(
                "POST", "/accounts/me/top-ups", json={"amount_minor": balance_minor}
            )
            assert status == 201, body

    async def order(self, amount_minor: int, key: str, seconds_max: float = 60) -> dict[str, Any]:
        """Place an order, again and again under the same key until it is answered."""
        headers = {"Idempotency-Key": key}
        async with asyncio.timeout(seconds_max):
            while True:
                with suppress(aiohttp.ClientError):
                    status, _, body = await self.call(
                        "POST", "/orders", json={"amount_minor": amount_minor}, headers=headers
                    )
                    if status == 201:
                        return dict(body)
                    assert status in (409, 503, 504), body
                await asyncio.sleep(0.2)

    async def until_final(self, order_id: str, seconds_max: float = 30) -> dict[str, Any]:
        """Return the order once it is FINISHED or CANCELLED."""
        async with asyncio.timeout(seconds_max):
            while True:
                status, _, body = await self.call("GET", f"/orders/{order_id}?wait=5")
                if status == 200 and body["status"] != "NEW":
                    return dict(body)

    @asynccontextmanager
    async def feed(self, cursor: str = "") -> AsyncIterator["Feed"]:
        """Listen to the user's feed, from a cursor or from now."""
        query = f"?last_event_id={cursor}" if cursor else ""
        async with self._session.ws_connect(f"{self.base}/ws{query}", headers=self._headers) as socket:
            feed = Feed(socket)
            hello = await feed.next()
            assert hello["type"] == "hello", hello
            yield feed


class Feed:
    """The frames that one connection was sent."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self.frames: list[dict[str, Any]] = []

    async def next(self, seconds_max: float = 15) -> dict[str, Any]:
        """Return the next frame."""
        frame: dict[str, Any] = json.loads(await self._socket.receive_str(timeout=seconds_max))
        self.frames.append(frame)
        return frame

    async def until(self, **wanted: object) -> dict[str, Any]:
        """Return the next frame that has these fields."""
        while True:
            frame = await self.next()
            if wanted.items() <= frame.items():
                return frame

    def numbers(self, stream: str) -> list[int]:
        """Return the numbers seen in a stream."""
        return [frame["seq"] for frame in self.frames if frame.get("stream") == stream]
