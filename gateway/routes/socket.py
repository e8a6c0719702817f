"""The feed over a WebSocket: its handshake, its two directions, and its end.

Closing codes: 1013 "reconnect and resume from your last id" (too slow, or history could not be read), 1001
this gateway is stopping (do the same), 1003 a binary message, 1009 a message over `MESSAGE_BYTES_MAX`.
"""

import asyncio
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from aiohttp import WSCloseCode, WSMsgType, web

from eshop.cancellation import cancel_and_wait
from gateway.app_keys import HISTORY, HUB, METRICS, RECONCILER, SETTINGS
from gateway.feed.connection import End, Feed
from gateway.feed.frames import Position, Stream
from gateway.feed.opening import known_heads, position_now
from gateway.http.api import Api
from gateway.http.identity import user_of_socket
from gateway.http.problems import Problem
from gateway.http.responses import BASE

#: The interval of pings; a client that doesn't answer within half of it is gone.
HEARTBEAT_SECONDS = 20.0
#: Clients have nothing to say. Text is read and forgotten.
MESSAGE_BYTES_MAX = 1024
#: How long a client may take to answer our close.
CLOSE_SECONDS_MAX = 2.0
#: The interval at which the end of a socket, by its heartbeat or within a read, is noticed if its tasks are
#: stuck.
WATCH_SECONDS = 5.0
#: A client may take 2 s to read the data before the end; then its connection is cut.
FLUSH_POLLS_MAX = 100
FLUSH_POLL_SECONDS = 0.02

_CODES = {
    End.SLOW: WSCloseCode.TRY_AGAIN_LATER,
    End.GAP: WSCloseCode.TRY_AGAIN_LATER,
    End.SHUTDOWN: WSCloseCode.GOING_AWAY,
}

_FAREWELLS = dict.fromkeys(_CODES.values(), b"reconnect and resume")

api = Api("feed")


@api.public(
    f"{BASE}/ws", answers={101: None}, problems=["unauthenticated", "foreign-origin"], allow_head=False
)
async def feed_socket(request: web.Request) -> web.WebSocketResponse:
    """Push the user's feed, from ``last_event_id`` or ``Last-Event-ID`` on, else from now on."""
    user_id = user_of_socket(request)
    _must_be_welcome(request)
    cursor = _cursor(request)
    socket = web.WebSocketResponse(
        heartbeat=HEARTBEAT_SECONDS,
        max_msg_size=MESSAGE_BYTES_MAX,
        compress=False,
        timeout=CLOSE_SECONDS_MAX,
    )
    if not socket.can_prepare(request):
        raise Problem("bad-request", "This is a WebSocket's address.")
    # Attached first: changes during the read of the heads wait in the feed.
    with request.app[HUB].attach(user_id) as feed:
        heads = await known_heads(request.app[HISTORY], user_id)
        for stream, head_feed_number in heads.items():
            feed.notice_head(stream, head_feed_number)
        if len(heads) < len(Stream):
            request.app[RECONCILER].soon()
        await socket.prepare(request)
        await _serve(request, socket, feed, position_now(heads) if cursor is None else cursor)
    return socket


async def _serve(request: web.Request, socket: web.WebSocketResponse, feed: Feed, start: Position) -> None:
    """Push and read until one of them ends. Return after the connection is gone: it counts till then."""
    pushing = asyncio.create_task(feed.run(start, socket.send_str))
    reading = asyncio.create_task(_read(socket))
    try:
        await _until_over(socket, pushing, reading)
        code = WSCloseCode.OK
        if pushing.done() and pushing.exception() is None:
            end = pushing.result()
            request.app[METRICS].feed_closes.labels(end.value).inc()
            code = _CODES[end]
        elif reading.done() and reading.exception() is None:
            code = reading.result()
        await _say_goodbye(socket, code)
    finally:
        await cancel_and_wait(pushing, reading, seconds_max=CLOSE_SECONDS_MAX)
        await _hang_up(request)


async def _until_over(
    socket: web.WebSocketResponse, pushing: asyncio.Task[End], reading: asyncio.Task[WSCloseCode]
) -> None:
    """Wait for the end of either task, or of the socket: a missing pong ends it, and wakes no stuck task."""
    done: set[asyncio.Task[Any]] = set()
    while not done and not socket.closed:
        done, _ = await asyncio.wait(
            {pushing, reading}, timeout=WATCH_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )


async def _say_goodbye(socket: web.WebSocketResponse, code: WSCloseCode) -> None:
    """Send our Close and wait for the client's, both for a bounded time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS_MAX):
            await socket.close(code=code, message=_FAREWELLS.get(code, b""), drain=False)


async def _hang_up(request: web.Request) -> None:
    """End the connection, flushed within a bounded time: unread data would keep it open without an end."""
    transport = request.transport
    if transport is None:
        return
    transport.close()
    for _ in range(FLUSH_POLLS_MAX):
        await asyncio.sleep(FLUSH_POLL_SECONDS)
        if request.transport is None:
            return
    transport.abort()
    await asyncio.sleep(0)


async def _read(socket: web.WebSocketResponse) -> WSCloseCode:
    """Read until the client is gone or breaks a rule; return the closing code."""
    async for message in socket:
        if message.type is WSMsgType.BINARY:
            return WSCloseCode.UNSUPPORTED_DATA
    return WSCloseCode.OK


def _must_be_welcome(request: web.Request) -> None:
    """Raise the 403 Problem for a page of another origin; a client without an origin is no browser."""
    origin = request.headers.get("Origin")
    if origin is None:
        return
    allowed = {name.strip() for name in request.app[SETTINGS].allowed_origins.split(",")}
    if origin not in allowed and urlsplit(origin).netloc != request.host:
        raise Problem("foreign-origin")


def _cursor(request: web.Request) -> Position | None:
    text = request.query.get("last_event_id", request.headers.get("Last-Event-ID"))
    return None if text is None else Position.parse(text)
