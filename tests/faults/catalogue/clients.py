"""Clients that are too many, or too slow."""

import asyncio
import socket
import time
from collections import Counter

import aiohttp
import psutil

from tests.faults.harness.fault import Fault, Fired, Scene
from tests.faults.harness.world import NotShown

TIMES = 10
BURST_SECONDS = 8.0
#: What a process may use at the most while ten times the load comes.
RSS_MIB_MAX = 900
ATTEMPT_SECONDS_MAX = 15.0
TASKS_MAX = 6_000
#: Refusals that say "not now" as a 503 does.
COME_AGAIN = ("idempotency-in-progress",)
UNREAD_SECONDS = 8.0


class Burst(Fault):
    """Ten times the load, of clients who do not slow down. Refusals are right, and memory stays bounded."""

    name = "ten times the load"

    async def fire(self, scene: Scene) -> Fired:
        statuses: Counter[int] = Counter()
        tasks: set[asyncio.Task[None]] = set()
        largest = 0
        begun = time.monotonic()
        sent = 0
        while (now := time.monotonic() - begun) < BURST_SECONDS:
            while sent < now * scene.per_second * TIMES and len(tasks) < TASKS_MAX:
                task = asyncio.create_task(self._order(scene, sent, statuses))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                sent += 1
            largest = max(largest, largest_rss_mib(scene))
            await asyncio.sleep(0.02)
        ended_at = time.monotonic()
        await asyncio.gather(*tasks)
        if set(statuses) - {0, 201, 429, 503, 504}:
            raise NotShown(f"under load there were other answers: {dict(statuses)}")
        if largest > RSS_MIB_MAX:
            raise NotShown(f"under load a process used {largest} MiB")
        told = ", ".join(f"{count} of {status or 'no answer'}" for status, count in sorted(statuses.items()))
        return Fired(evidence=f"{sent} orders in {BURST_SECONDS:.0f} s: {told}", ended_at=ended_at)

    async def _order(self, scene: Scene, number: int, statuses: Counter[int]) -> None:
        customer = scene.load.customers[number % len(scene.load.customers)]
        key = f"burst-{time.monotonic_ns()}-{number}"
        gateways = scene.world.shop.gateways()
        try:
            async with (
                asyncio.timeout(ATTEMPT_SECONDS_MAX),
                scene.session.post(
                    f"{gateways[number % len(gateways)]}/api/v1/orders",
                    json={"amount_minor": 1},
                    headers={"X-User-Id": customer.user_id, "Idempotency-Key": key},
                ) as answer,
            ):
                body = await answer.json(content_type=None)
                statuses[503 if body.get("code") in COME_AGAIN else answer.status] += 1
                if answer.status == 201:
                    scene.answers.order(customer.user_id, key, 201, body)
        except (aiohttp.ClientError, TimeoutError, OSError):
            statuses[0] += 1


def largest_rss_mib(scene: Scene) -> int:
    """Return the memory of the shop's largest process of our own."""
    sizes = []
    for record in scene.world.records().values():
        if record.pid and record.kind in ("orders", "payments", "projections", "gateway"):
            try:
                sizes.append(psutil.Process(record.pid).memory_info().rss)
            except psutil.Error:
                continue
    return max(sizes, default=0) // 1024**2


class NeverReads(Fault):
    """A client opens sockets and reads nothing. Others are not slowed; see its recovery."""

    name = "clients that never read their socket"

    async def fire(self, scene: Scene) -> Fired:
        gateways = scene.world.shop.gateways()
        open_: list[socket.socket] = []
        try:
            for number, customer in enumerate(scene.load.customers[:20]):
                host, _, port = gateways[number % len(gateways)].removeprefix("http://").partition(":")
                open_.append(await asyncio.to_thread(_handshake, host, int(port), customer.user_id))
            await asyncio.sleep(UNREAD_SECONDS)
        finally:
            for one in open_:
                one.close()
        return Fired(evidence=f"{len(open_)} sockets for {UNREAD_SECONDS:.0f} s")


def _handshake(host: str, port: int, user_id: str) -> socket.socket:
    """Open a feed from its start, and leave it unread."""
    one = socket.create_connection((host, port), 5)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.sendall(
        f"GET /api/v1/ws?last_event_id=0.0 HTTP/1.1\r\nHost: {host}:{port}\r\nX-User-Id: {user_id}\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    if not one.recv(12).endswith(b"101"):
        raise NotShown("the handshake of a feed was refused")
    return one
