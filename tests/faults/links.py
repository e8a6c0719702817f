"""Small TCP proxies between the shop's parts: a network that can be cut, one-way, slow or lossy."""

import asyncio
import random
from contextlib import suppress
from enum import StrEnum
from typing import cast

HOST = "127.0.0.1"
#: What a chunk waits on a slow link, and what a lost packet costs until it is sent again.
SLOW_SECONDS = 0.15
RESEND_SECONDS = 0.25
LOST_SHARE = 0.15
RESET_SHARE = 0.01
#: How often a server that refuses is asked again.
ANSWER_POLL_SECONDS = 0.05


class Mode(StrEnum):
    """What a link does with bytes.

    ``cut``: they go nowhere, and nobody is told. ``one_way``: requests arrive, answers don't.
    """

    OPEN = "open"
    CUT = "cut"
    ONE_WAY = "one_way"
    SLOW = "slow"
    LOSSY = "lossy"


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
        self._server: asyncio.Server | None = None
        self._waiting: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Listen on a free port, the same for as long as the link lives."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Side(self, None), HOST, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Refuse connections as the server does, for as long as it does."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._waiting = asyncio.get_running_loop().create_task(self._until_answered())

    async def _until_answered(self) -> None:
        while True:
            await asyncio.sleep(ANSWER_POLL_SECONDS)
            with suppress(OSError):
                _, writer = await asyncio.open_connection(HOST, self.target_port)
                writer.close()
                await self.open()
                return

    def set_mode(self, mode: Mode) -> None:
        """Change the weather. After a cut its connections are reset, as a network's are that came back."""
        before, self.mode = self.mode, mode
        for side in list(self._pipes):
            if before in (Mode.CUT, Mode.ONE_WAY) and mode is Mode.OPEN:
                side.reset()
            elif side.is_held():
                side.hold()

    def close(self) -> None:
        """Listen no more, and end every connection."""
        if self._server is not None:
            self._server.close()
        if self._waiting is not None:
            self._waiting.cancel()
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
        if self._is_client:
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
        self._link.carried_bytes += len(data)
        mode, rng = self._link.mode, self._link.rng
        if mode is Mode.LOSSY and rng.random() < RESET_SHARE:
            self.reset()
        elif mode is Mode.SLOW:
            self._deliver_later(data, SLOW_SECONDS * rng.uniform(0.5, 1.5))
        elif mode is Mode.LOSSY and rng.random() < LOST_SHARE:
            self._deliver_later(data, RESEND_SECONDS)
        else:
            self._deliver(data)

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
                side._transport.abort()
