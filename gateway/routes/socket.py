"""The feed over a WebSocket: its handshake, its two directions, and how it ends.

Closing codes: 1013 "reconnect and resume from your last id" (too slow, or history could not be read), 1001
this gateway is going away (do the same), 1003 a binary message, 1009 a message over `MESSAGE_BYTES_MAX`.
"""

import asyncio
from urllib.parse import urlsplit

from aiohttp import WSCloseCode, WSMsgType, web

from eshop.cancellation import cancel_and_wait
from gateway.feed import End, Feed
from gateway.frames import Position
from gateway.identity import user_of_socket
from gateway.keys import HISTORY, HUB, METRICS, SETTINGS
from gateway.problems import Problem
from gateway.routes.answers import BASE

#: A ping this often; a client that doesn't answer within half of it is gone.
HEARTBEAT_SECONDS = 20.0
#: Clients have nothing to say. Text is read and forgotten.
MESSAGE_BYTES_MAX = 1024
#: How long a client may take to answer our close.
CLOSE_SECONDS_MAX = 2.0

_CODES = {
    End.SLOW: WSCloseCode.TRY_AGAIN_LATER,
    End.GAP: WSCloseCode.TRY_AGAIN_LATER,
    End.SHUTDOWN: WSCloseCode.GOING_AWAY,
}

routes = web.RouteTableDef()


@routes.get(f"{BASE}/ws", allow_head=False)
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
    # Attached first: what happens while the heads are read waits in the feed.
    with request.app[HUB].attach(user_id) as feed:
        (head,) = await request.app[HISTORY].heads([user_id])
        feed.notice_head(head)
        start = head if cursor is None else cursor.no_further_than(head)
        await socket.prepare(request)
        await _serve(request, socket, feed, start)
    return socket


async def _serve(request: web.Request, socket: web.WebSocketResponse, feed: Feed, start: Position) -> None:
    pushing = asyncio.create_task(feed.run(start, socket.send_str))
    reading = asyncio.create_task(_read(socket))
    try:
        await asyncio.wait({pushing, reading}, return_when=asyncio.FIRST_COMPLETED)
        if pushing.done() and pushing.exception() is None:
            end = pushing.result()
            request.app[METRICS].feed_closes.labels(end.value).inc()
            await socket.close(code=_CODES[end], message=b"reconnect and resume", drain=False)
            if end is End.SLOW and request.transport is not None:
                # What it did not read would keep the connection open for as long as it likes.
                request.transport.abort()
    finally:
        await cancel_and_wait(pushing, reading)


async def _read(socket: web.WebSocketResponse) -> None:
    """Read until the client is gone; text is ignored, anything else ends the connection."""
    async for message in socket:
        if message.type is WSMsgType.BINARY:
            await socket.close(code=WSCloseCode.UNSUPPORTED_DATA)


def _must_be_welcome(request: web.Request) -> None:
    """Raise the 403 Problem for a page of another origin; who sends none is no browser."""
    origin = request.headers.get("Origin")
    if origin is None:
        return
    allowed = {name.strip() for name in request.app[SETTINGS].allowed_origins.split(",")}
    if origin not in allowed and urlsplit(origin).netloc != request.host:
        raise Problem("foreign-origin")


def _cursor(request: web.Request) -> Position | None:
    text = request.query.get("last_event_id", request.headers.get("Last-Event-ID"))
    return None if text is None else Position.parse(text)
