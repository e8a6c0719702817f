"""Sockets of customers: cut, moved between gateways, resumed from the last frame, and never with a gap."""

import asyncio
import json
import random
from contextlib import suppress
from typing import Any

import aiohttp

from tests.faults.harness.load import Answers

STREAMS = ("orders", "wallet")
CONNECT_SECONDS_MAX = 10.0
#: The longest time before a socket's customer moves on.
STAY_SECONDS_MAX = 40.0


class Listener:
    """One user's sockets, one after the other. Every stream's numbers must grow by one, over all of them."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        gateways: list[str],
        user_id: str,
        answers: Answers,
        rng: random.Random,
    ) -> None:
        self._session = session
        self._gateways = gateways
        self._answers = answers
        self._rng = rng
        self.user_id = user_id
        self.last = dict.fromkeys(STREAMS, 0)
        self.frames = 0
        self.connections = 0
        self._cursor = "0.0"

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            with suppress(aiohttp.ClientError, OSError, TimeoutError):
                await self._listen()
            await asyncio.sleep(self._rng.uniform(0.05, 0.5))

    async def _listen(self) -> None:
        gateway = self._gateways[self._rng.randrange(len(self._gateways))]
        url = f"{gateway}/api/v1/ws?last_event_id={self._cursor}"
        stay = self._rng.uniform(2.0, STAY_SECONDS_MAX)
        async with asyncio.timeout(CONNECT_SECONDS_MAX):
            socket = await self._session.ws_connect(
                url, headers={"X-User-Id": self.user_id}, timeout=aiohttp.ClientWSTimeout(ws_close=1.0)
            )
        try:
            self.connections += 1
            async with asyncio.timeout(stay):
                async for message in socket:
                    if message.type is aiohttp.WSMsgType.TEXT:
                        self._take(json.loads(message.data))
        finally:
            # As clients leave whose network is gone.
            if not socket.closed:
                await socket.close()

    def _take(self, frame: dict[str, Any]) -> None:
        self.frames += 1
        if frame["type"] == "hello":
            return
        stream, seq = frame["stream"], frame["seq"]
        if seq != self.last[stream] + 1:
            self._answers.broken(
                f"the feed of {self.user_id}, {stream}: {seq} came after {self.last[stream]}"
            )
        self.last[stream] = seq
        self._cursor = frame["id"]
