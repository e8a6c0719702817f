"""Small TCP proxies between the shop's parts: a network that can be cut, one-way, slow, lossy or refused."""

import asyncio
import random
import socket
import struct
from contextlib import suppress
from enum import StrEnum
from typing import cast

HOST = "127.0.0.1"
#: What a chunk waits on a slow link, and what a lost packet costs until it is sent again.
SLOW_SECONDS = 0.15
RESEND_SECONDS = 0.25
LOST_SHARE = 0.15
RESET_SHARE = 0.01
#: How many connections a link that resets does not even take a request from.
RESET_AT_ONCE_SHARE = 0.5
#: What ends without lingering sends a reset, even if everything was read.
NO_LINGER = struct.pack("ii", 1, 0)
#: How often a server that refuses is asked again.
ANSWER_POLL_SECONDS = 0.05


class Mode(StrEnum):
    """What a link does with bytes.

    ``cut``: they go nowhere, and nobody is told. ``one_way``: requests arrive, answers don't. ``closed``:
    connections are refused. ``reset``: they are reset, at once, or after a request when its reply is due.
    """

    OPEN = "open"
    CUT = "cut"
    ONE_WAY = "one_way"
    SLOW = "slow"
    LOSSY = "lossy"
    CLOSED = "closed"
    RESET = "reset"


class Link:
    """A port that leads to another one. What is on its way when a cut ends is lost with its connection."""

    def __init__(self, name: str, target_port: int, rng: random.Random) -> None:
        self.name = name
        self.target_port = target_port
        self.port = 0
        self.mode = Mode.OPEN
        self.carried_bytes = 0
        self.rng = rng
        self._pipes: set[_Side] = set()
        #: Bound and never listening: nobody else gets the port while it is closed.
        self._reserved: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._waiting: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Listen on a free port, the same for as long as the link lives."""
        if self._reserved is None:
            self._reserved = _reserve_port()
            self.port = self._reserved.getsockname()[1]
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Side(self, None), HOST, self.port, reuse_address=True, reuse_port=True
        )

    def refuse(self) -> None:
        """Refuse connections for as long as the server does, or the link is closed."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._waiting = asyncio.get_running_loop().create_task(self._until_answered())

    async def _until_answered(self) -> None:
        while True:
            await asyncio.sleep(ANSWER_POLL_SECONDS)
            if self.mode is Mode.CLOSED:
                continue
            with suppress(OSError):
                _, writer = await asyncio.open_connection(HOST, self.target_port)
                writer.close()
                await self.open()
                return

    def set_mode(self, mode: Mode) -> None:
        """Change the weather. After a cut its connections are reset, as a network's are that came back."""
        before, self.mode = self.mode, mode
        if mode is Mode.CLOSED:
            self.refuse()
        for side in list(self._pipes):
            if mode is Mode.CLOSED or (before in (Mode.CUT, Mode.ONE_WAY) and mode is Mode.OPEN):
                side.reset()
            elif side.is_held():
                side.hold()

    def close(self) -> None:
        """Listen no more, and end every connection."""
        if self._server is not None:
            self._server.close()
        if self._waiting is not None:
            self._waiting.cancel()
        if self._reserved is not None:
            self._reserved.close()
        for side in list(self._pipes):
            side.reset()

    def connections(self) -> int:
        """Return how many connections there are."""
        return len(self._pipes) // 2

    def add(self, side: "_Side") -> None:
        """Know a connection's end."""
        self._pipes.add(side)

    def forget(self, side: "_Side") -> None:
        """Know it no more."""
        self._pipes.discard(side)


def _reserve_port() -> socket.socket:
    reserved = socket.socket()
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        reserved.setsockopt(socket.SOL_SOCKET, option, 1)
    reserved.bind((HOST, 0))
    return reserved


class _Side(asyncio.Protocol):
    """One end of a connection. The client's end makes the server's."""

    def __init__(self, link: Link, client: "_Side | None") -> None:
        self._link = link
        self._is_client = client is None
        self._other = client
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self._dialling: asyncio.Task[None] | None = None
        self._is_delaying = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._link.add(self)
        if self._is_client and self._is_reset_at_once():
            self.reset()
        elif self._is_client:
            self._dialling = asyncio.get_running_loop().create_task(self._dial())
        if self.is_held():
            self.hold()

    async def _dial(self) -> None:
        server = _Side(self._link, self)
        try:
            await asyncio.get_running_loop().create_connection(lambda: server, HOST, self._link.target_port)
        except OSError:
            self._link.refuse()
            self.reset()
            return
        self._other = server
        if self._transport is None or self._transport.is_closing():
            server.reset()
            return
        for data in self._early:
            server.write(data)
        self._early.clear()

    def is_held(self) -> bool:
        """Whether what this end sends goes nowhere now."""
        mode = self._link.mode
        return mode is Mode.CUT or (mode is Mode.ONE_WAY and not self._is_client)

    def hold(self) -> None:
        """Take nothing from this end any more: the sender's buffers fill, as they do behind a cut."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        if self.is_held():  # uvloop reads from a connection that was held before it was quite there
            return
        self._link.carried_bytes += len(data)
        mode, rng = self._link.mode, self._link.rng
        if self._is_reset_now():
            self.reset()
        elif mode is Mode.SLOW:
            self._deliver_later(data, SLOW_SECONDS * rng.uniform(0.5, 1.5))
        elif mode is Mode.LOSSY and rng.random() < LOST_SHARE:
            self._deliver_later(data, RESEND_SECONDS)
        else:
            self._deliver(data)

    def _is_reset_now(self) -> bool:
        if self._link.mode is Mode.LOSSY:
            return self._link.rng.random() < RESET_SHARE
        return self._link.mode is Mode.RESET and not self._is_client

    def _is_reset_at_once(self) -> bool:
        return self._link.mode is Mode.RESET and self._link.rng.random() < RESET_AT_ONCE_SHARE

    def _deliver_later(self, data: bytes, seconds: float) -> None:
        """Deliver in a while. Nothing is read meanwhile, so that bytes stay in order."""
        assert self._transport is not None
        self._transport.pause_reading()
        self._is_delaying = True
        asyncio.get_running_loop().call_later(seconds, self._delayed, data)

    def _delayed(self, data: bytes) -> None:
        self._is_delaying = False
        self._deliver(data)
        if not self.is_held():
            self.resume_writing_to_me()

    def _deliver(self, data: bytes) -> None:
        if self._other is None:
            self._early.append(data)
        else:
            self._other.write(data)

    def write(self, data: bytes) -> None:
        """Send to the program at this end."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def pause_writing(self) -> None:
        if self._other is not None:
            self._other.hold()

    def resume_writing(self) -> None:
        if self._other is not None and not self._other.is_held():
            self._other.resume_writing_to_me()

    def resume_writing_to_me(self) -> None:
        """Read from this end again."""
        if self._transport is not None and not self._transport.is_closing() and not self._is_delaying:
            with suppress(RuntimeError):  # it was not paused
                self._transport.resume_reading()

    def eof_received(self) -> bool:
        if self._other is not None and self._other._transport is not None:
            with suppress(OSError, RuntimeError):
                self._other._transport.write_eof()
        return False

    def connection_lost(self, _error: Exception | None) -> None:
        self._link.forget(self)
        if self._other is not None:
            self._other.close()

    def close(self) -> None:
        """Let what is written arrive, then end."""
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """End both ends at once."""
        for side in (self, self._other):
            if side is not None and side._transport is not None:
                if (ours := side._transport.get_extra_info("socket")) is not None and ours.fileno() >= 0:
                    ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
                side._transport.abort()
