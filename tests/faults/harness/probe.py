"""Is the shop served again? An order in every partition, placed now, must become final.

A partition is handled in order, by relays and agents alike: an order that is final says that whatever was
before it in its partition, on both topics, is done as well. One in each partition says so of all.
"""

import asyncio
import itertools
import time
from typing import Any

import aiohttp
from aiokafka.partitioner import DefaultPartitioner

from eshop.contracts.topics import PARTITIONS

#: One attempt of a client that does not like to wait.
ATTEMPT_SECONDS_MAX = 4.0
AGAIN_SECONDS = 0.2
WALLET_MINOR = 1_000_000_000


def user_of_partition(partition: int, prefix: str) -> str:
    """Return a user whose events are in that partition."""
    partitions = list(range(PARTITIONS))
    names = (f"{prefix}-{partition}-{number}" for number in itertools.count())
    return next(
        name for name in names if DefaultPartitioner()(name.encode(), partitions, partitions) == partition
    )


class Probe:
    """A user in every partition, with money, who orders one unit whenever we want to know."""

    def __init__(self, session: aiohttp.ClientSession, gateways: list[str], prefix: str) -> None:
        self._session = session
        self._gateways = gateways
        self._number = itertools.count(1)
        self.users = [user_of_partition(partition, prefix) for partition in range(PARTITIONS)]

    async def open(self) -> None:
        """Give every user a wallet."""
        for user in self.users:
            await self._insist(user, "/accounts", {}, "open", 0)
            await self._insist(user, "/accounts/me/top-ups", {"amount_minor": WALLET_MINOR}, "money", 1)

    async def top_up(self) -> None:
        """Have payments announce something."""
        body = {"amount_minor": 1}
        await self._insist(self.users[0], "/accounts/me/top-ups", body, f"more-{next(self._number)}", 0)

    async def served(self, seconds_max: float) -> None:
        """Return when an order in every partition, placed now, is final; raise TimeoutError."""
        number = next(self._number)
        async with asyncio.timeout(seconds_max):
            await asyncio.gather(
                *(self._order(user, f"probe-{number}", at) for at, user in enumerate(self.users, number))
            )

    async def seconds_served(self, seconds_max: float) -> float:
        """Return how long ``served`` took."""
        begun = time.monotonic()
        await self.served(seconds_max)
        return time.monotonic() - begun

    async def _order(self, user: str, key: str, at: int) -> None:
        order = await self._insist(user, "/orders", {"amount_minor": 1}, key, at)
        while True:
            at += 1
            status, body = await self._attempt("GET", user, f"/orders/{order['order_id']}?wait=2", at)
            if status == 200 and body["status"] != "NEW":
                return
            if status != 200:
                await asyncio.sleep(AGAIN_SECONDS)

    async def _insist(self, user: str, path: str, body: Any, key: str, at: int) -> Any:
        while True:
            status, answer = await self._attempt(
                "POST", user, path, at, json=body, headers={"Idempotency-Key": key}
            )
            if status == 201:
                return answer
            assert status in (0, 409, 429, 503, 504), (status, answer)
            at += 1
            await asyncio.sleep(AGAIN_SECONDS)

    async def _attempt(self, verb: str, user: str, path: str, at: int, **options: Any) -> tuple[int, Any]:
        """Return status and body, status 0 where there was no answer."""
        headers = {"X-User-Id": user, **options.pop("headers", {})}
        url = f"{self._gateways[at % len(self._gateways)]}/api/v1{path}"
        try:
            async with (
                asyncio.timeout(ATTEMPT_SECONDS_MAX),
                self._session.request(verb, url, headers=headers, **options) as answer,
            ):
                return answer.status, await answer.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return 0, None
