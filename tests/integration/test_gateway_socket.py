"""The feed over a real WebSocket, before services in memory behind real gRPC."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientWebSocketResponse, WSCloseCode, WSMsgType, WSServerHandshakeError, web
from aiohttp.test_utils import TestClient
from grpc import StatusCode

from gateway.app_keys import HUB
from gateway.feed import connection, frames
from tests.support.fake_services import FakeServices

pytest_plugins = ["tests.support.gateway"]

Client = TestClient[web.Request, web.Application]
WS = "/api/v1/ws"


class Feed:
    """A connected client and the shop behind it."""

    def __init__(self, client: Client, services: FakeServices) -> None:
        assert client.app is not None
        self.client = client
        self.hub = client.app[HUB]
        self.services = services

    def place(self, user_id: str = "ann") -> str:
        order = self.services.orders.place(user_id, 5)
        self.hub.dispatch(user_id, frames.of_order_history(self.services.orders.feeds[user_id][-1]))
        return order.order_id

    def top_up(self, user_id: str = "ann") -> None:
        self.services.payments.change(user_id, 5)
        self.hub.dispatch(user_id, frames.of_wallet_history(self.services.payments.feeds[user_id][-1]))

    async def connect(
        self, query: str = "", headers: dict[str, str] | None = None
    ) -> ClientWebSocketResponse:
        return await self.client.ws_connect(WS + query, headers=headers)


@pytest.fixture
def shop(client: Client, services: FakeServices) -> Feed:
    return Feed(client, services)


async def ids(socket: ClientWebSocketResponse, count: int) -> list[str]:
    return [(await socket.receive_json())["id"] for _ in range(count)]


async def test_what_happens_is_pushed_in_the_stated_form(shop: Feed) -> None:
    socket = await shop.connect()
    assert await socket.receive_json() == {"id": "0.0", "type": "hello", "cursor": "0.0"}
    order_id = shop.place()
    frame = await socket.receive_json()
    at = frame.pop("at")
    assert at.endswith("Z")
    assert frame == {
        "id": "1.0",
        "stream": "orders",
        "seq": 1,
        "type": "order.status",
        "order_id": order_id,
        "status": "NEW",
        "reason": None,
        "version": 1,
    }
    shop.top_up()
    wallet = await socket.receive_json()
    assert (wallet["id"], wallet["stream"], wallet["type"]) == ("1.1", "wallet", "wallet.balance")
    assert (wallet["balance_minor"], wallet["currency"], wallet["version"]) == (5, "USD", 1)
    await socket.close()


async def test_a_client_resumes_after_its_last_frame(shop: Feed) -> None:
    socket = await shop.connect()
    shop.place()
    shop.top_up()
    assert await ids(socket, 3) == ["0.0", "1.0", "1.1"]
    await socket.close()
    for _ in range(3):
        shop.place()
    again = await shop.connect("?last_event_id=1.1")
    assert await ids(again, 4) == ["1.1", "2.1", "3.1", "4.1"]
    shop.place()
    assert await ids(again, 1) == ["5.1"]
    await again.close()
    by_header = await shop.connect(headers={"Last-Event-ID": "4.0"})
    assert await ids(by_header, 3) == ["4.0", "5.0", "5.1"]
    await by_header.close()


async def test_a_cursor_from_the_future_is_taken_back_to_the_heads(shop: Feed) -> None:
    shop.place()
    socket = await shop.connect("?last_event_id=9.9")
    assert await ids(socket, 1) == ["1.0"]
    shop.place()
    assert await ids(socket, 1) == ["2.0"]
    await socket.close()


async def test_only_ones_own_frames_come(shop: Feed) -> None:
    ann = await shop.connect()
    bob = await shop.connect("?user=bob", headers={"X-User-Id": "bob"})
    await ids(ann, 1)
    await ids(bob, 1)
    theirs = shop.place("bob")
    mine = shop.place("ann")
    assert (await ann.receive_json())["order_id"] == mine
    assert (await bob.receive_json())["order_id"] == theirs
    await ann.close()
    await bob.close()


async def test_a_browser_names_its_user_in_the_query(shop: Feed) -> None:
    shop.client.session.headers.pop("X-User-Id")
    socket = await shop.connect("?user=bob")
    await ids(socket, 1)
    shop.place("bob")
    assert await ids(socket, 1) == ["1.0"]
    await socket.close()


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ("?last_event_id=x", {}, 400),
        ("?last_event_id=", {}, 400),
        ("", {"Last-Event-ID": "1"}, 400),
        ("", {"X-User-Id": "a b"}, 401),
        ("?user=", {"X-User-Id": ""}, 401),
        ("", {"Origin": "https://evil.example"}, 403),
        ("", {"Origin": "null"}, 403),
        ("", {"Origin": "http://127.0.0.1.evil.example"}, 403),
    ],
)
async def test_a_handshake_that_is_not_welcome_is_refused(
    shop: Feed, query: str, headers: dict[str, str], status: int
) -> None:
    with pytest.raises(WSServerHandshakeError) as refused:
        await shop.connect(query, headers=headers)
    assert refused.value.status == status
    assert not shop.hub.users()


async def test_pages_of_our_own_and_of_listed_origins_are_welcome(shop: Feed) -> None:
    own = str(shop.client.make_url("/")).rstrip("/")
    for origin in (own, "https://shop.example"):
        socket = await shop.connect(headers={"Origin": origin})
        await ids(socket, 1)
        await socket.close()


async def test_services_that_are_down_are_said_before_the_handshake(shop: Feed) -> None:
    shop.services.does.fail = {
        "orders.FeedHeads": StatusCode.UNAVAILABLE,
        "payments.FeedHeads": StatusCode.UNAVAILABLE,
    }
    with pytest.raises(WSServerHandshakeError) as refused:
        await shop.connect()
    assert refused.value.status == 503
    assert not shop.hub.users()


@pytest.mark.parametrize("resumed", [False, True])
async def test_a_feed_opens_with_what_one_service_tells_and_the_other_stream_joins(
    shop: Feed, resumed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.feed.opening.SKEW_SECONDS_MAX", 0)
    for _ in range(3):
        shop.services.payments.change("ann", 5)
    shop.place()
    shop.services.does.fail["payments.FeedHeads"] = StatusCode.UNAVAILABLE
    one = await shop.connect("?last_event_id=0.1" if resumed else "")
    hello = await one.receive_json()
    assert hello["id"].startswith("0.1" if resumed else "1.@")
    if resumed:
        assert await ids(one, 1) == ["1.1"]
    shop.place()
    frame = await one.receive_json()
    assert frame["seq"] == 2, "orders do not wait for payments"
    shop.services.payments.change("ann", 5)  # and no event tells of it
    if not resumed:
        # Gone before the stream has joined: the cursor still says from when on.
        await one.close()
        one = await shop.connect(f"?last_event_id={frame['id']}")
        assert (await one.receive_json())["id"] == frame["id"]
    shop.services.does.fail.clear()
    wanted = ["2.2", "2.3", "2.4"] if resumed else ["2.4"]
    async with asyncio.timeout(20):
        assert await ids(one, len(wanted)) == wanted
    shop.top_up()
    assert await ids(one, 1) == ["2.5"]
    await one.close()


async def test_a_plain_request_is_told_that_this_is_a_socket(client: Client) -> None:
    response = await client.get(WS)
    assert (response.status, (await response.json())["code"]) == (400, "bad-request")


async def test_a_users_sockets_are_bounded(shop: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.feed.hub.CONNECTIONS_PER_USER_MAX", 2)
    sockets = [await shop.connect() for _ in range(2)]
    with pytest.raises(WSServerHandshakeError) as refused:
        await shop.connect()
    assert (refused.value.status, "Retry-After" in (refused.value.headers or {})) == (429, True)
    for one in sockets:
        await one.close()


async def test_what_clients_say_is_ignored_or_too_much(shop: Feed) -> None:
    socket = await shop.connect()
    await ids(socket, 1)
    await socket.send_str("hello there")
    shop.place()
    assert await ids(socket, 1) == ["1.0"]
    await socket.send_bytes(b"\0")
    assert (await socket.receive()).type is WSMsgType.CLOSE
    assert socket.close_code == WSCloseCode.UNSUPPORTED_DATA
    again = await shop.connect()
    await ids(again, 1)
    await again.send_str("x" * 5000)
    assert (await again.receive()).type is WSMsgType.CLOSE
    assert again.close_code == WSCloseCode.MESSAGE_TOO_BIG


async def test_a_gap_that_cannot_be_filled_closes_with_a_code_to_resume(shop: Feed) -> None:
    socket = await shop.connect()
    await ids(socket, 1)
    shop.services.does.fail["orders.ReadFeed"] = StatusCode.UNAVAILABLE
    shop.services.orders.place("ann", 5)
    shop.place()
    assert (await socket.receive()).type is WSMsgType.CLOSE
    assert socket.close_code == WSCloseCode.TRY_AGAIN_LATER
    shop.services.does.fail.clear()
    again = await shop.connect("?last_event_id=0.0")
    assert await ids(again, 3) == ["0.0", "1.0", "2.0"]
    await again.close()


async def test_a_client_that_never_reads_is_dropped_and_others_are_not_slowed(
    shop: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "QUEUE_MAX", 10)
    server = shop.client.server
    reader, writer = await asyncio.open_connection(server.host, server.port, limit=1024)
    writer.write(
        f"GET {WS} HTTP/1.1\r\nHost: x\r\nX-User-Id: ann\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    good = await shop.connect()
    await ids(good, 1)
    seq = 0
    async with asyncio.timeout(60):
        while len(shop.hub._feeds["ann"]) == 2:
            seq += 1
            fields = {"type": "order.status", "status": "NEW", "padding": "x" * 500_000}
            shop.hub.dispatch("ann", frames.Frame(frames.Stream.ORDERS, seq, "1", 1, fields))
            assert await ids(good, 1) == [f"{seq}.0"]
    assert seq > 10
    await good.close()
    writer.close()


class Deaf:
    """A client that says things and never reads what it is sent."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    async def say(self, opcode: int, payload: bytes) -> None:
        size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2)
        frame = bytes([0x80 | opcode]) + size + bytes(4) + payload
        await asyncio.get_running_loop().sock_sendall(self._connection, frame)


@asynccontextmanager
async def deaf(shop: Feed) -> AsyncIterator[Deaf]:
    """Connect as ann with almost no room for what arrives."""
    loop, server = asyncio.get_running_loop(), shop.client.server
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)
        await loop.sock_connect(connection, (server.host, server.port))
        await loop.sock_sendall(
            connection,
            f"GET {WS} HTTP/1.1\r\nHost: x\r\nX-User-Id: ann\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode(),
        )
        assert (await loop.sock_recv(connection, 12)).endswith(b"101")
        yield Deaf(connection)


def clog(shop: Feed) -> None:
    """Have more on the way to ann than the system's buffers hold."""
    fields = {"type": "order.status", "status": "NEW", "padding": "x" * 500_000}
    for seq in range(1, 21):
        shop.hub.dispatch("ann", frames.Frame(frames.Stream.ORDERS, seq, "1", 1, fields))


@pytest.mark.parametrize(
    ("opcode", "payload"),
    [(8, b"\x03\xe8"), (2, b"x"), (1, b"x" * 5000), (3, b""), (9, b"ping")],
    ids=["close", "binary", "oversized", "malformed", "silent"],
)
async def test_a_client_that_never_reads_counts_until_it_is_gone_and_is_gone_soon(
    shop: Feed, opcode: int, payload: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.routes.socket.CLOSE_SECONDS_MAX", 0.2)
    monkeypatch.setattr("gateway.routes.socket.FLUSH_POLLS_MAX", 10)
    monkeypatch.setattr("gateway.routes.socket.WATCH_SECONDS", 0.2)
    if opcode == 9:
        monkeypatch.setattr("gateway.routes.socket.HEARTBEAT_SECONDS", 1.0)
    async with deaf(shop) as client:
        while not shop.hub.users():
            await asyncio.sleep(0.01)
        clog(shop)
        await client.say(opcode, payload)
        async with asyncio.timeout(20):
            while shop.hub.users():
                await asyncio.sleep(0.01)
        # No longer counted: then the server has let go of it, although nothing was read.
        await asyncio.sleep(0)
        assert shop.client.server.handler.connections == []


async def test_a_client_that_never_reads_holds_up_no_farewell(
    shop: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.routes.socket.CLOSE_SECONDS_MAX", 0.2)
    monkeypatch.setattr("gateway.routes.socket.FLUSH_POLLS_MAX", 10)
    async with deaf(shop):
        while not shop.hub.users():
            await asyncio.sleep(0.01)
        clog(shop)
        shop.hub.close()
        async with asyncio.timeout(20):
            while shop.client.server.handler.connections or shop.hub.users():
                await asyncio.sleep(0.01)


async def test_shutting_down_sends_clients_elsewhere(shop: Feed) -> None:
    socket = await shop.connect()
    await ids(socket, 1)
    closing = asyncio.create_task(shop.client.server.close())
    assert (await socket.receive()).type is WSMsgType.CLOSE
    assert socket.close_code == WSCloseCode.GOING_AWAY
    await closing


async def test_nothing_is_left_of_a_connection_that_ended(shop: Feed) -> None:
    for _ in range(5):
        socket = await shop.connect()
        await ids(socket, 1)
        await socket.close()
    async with asyncio.timeout(5):
        while shop.hub.users():
            await asyncio.sleep(0)
    metrics = await (await shop.client.get("/metrics")).text()
    assert "gateway_feed_connections 0.0" in metrics
