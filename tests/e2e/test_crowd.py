"""Two thousand at once, all wanting the same: one gets it, the others are told why not."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from tests.support.builders import new_id
from tests.support.shop_process import Shop, Shopper

CROWD = 2_000
FINAL_SECONDS_MAX = 60


async def insist(call: Callable[[], Awaitable[tuple[int, Any, Any]]]) -> tuple[int, Any]:
    """Call until the answer is one, as a client does who is told to come later."""
    while True:
        status, _, body = await call()
        if status not in (503, 504):
            return status, body
        await asyncio.sleep(0.5)


@pytest.mark.timeout(240)
async def test_one_account_is_opened_and_its_last_unit_is_spent_once(shop: Shop) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        user_id = f"crowd-{new_id()}"
        here, there = (Shopper(session, gateway, user_id) for gateway in shop.gateways())
        crowd = [here, there] * (CROWD // 2)
        opened = await asyncio.gather(
            *(insist(lambda s=shopper: s.call("POST", "/accounts", json={})) for shopper in crowd)  # type: ignore[misc]
        )
        assert Counter((status, body.get("code")) for status, body in opened) == {
            (201, None): 1,
            (409, "account-exists"): CROWD - 1,
        }
        await here.call("POST", "/accounts/me/top-ups", json={"amount_minor": 1})
        placed = await asyncio.gather(
            *(
                insist(
                    lambda s=shopper, n=number: s.call(  # type: ignore[misc]
                        "POST", "/orders", json={"amount_minor": 1}, headers={"Idempotency-Key": str(n)}
                    )
                )
                for number, shopper in enumerate(crowd)
            )
        )
        assert Counter(status for status, _ in placed) == {201: CROWD}
        assert len({body["order_id"] for _, body in placed}) == CROWD
        ends = Counter((order["status"], order["reason"]) for order in await until_all_final(here))
        assert ends == {("FINISHED", None): 1, ("CANCELLED", "insufficient_funds"): CROWD - 1}


async def until_all_final(shopper: Shopper) -> list[dict[str, Any]]:
    """Return all orders of the user once none is NEW."""
    async with asyncio.timeout(FINAL_SECONDS_MAX):
        while (await shopper.call("GET", "/orders?status=NEW&limit=1"))[2]["items"]:
            await asyncio.sleep(0.2)
    orders: list[dict[str, Any]] = []
    path = "/orders?limit=100"
    while path:
        _, _, page = await shopper.call("GET", path)
        orders += page["items"]
        path = f"/orders?limit=100&cursor={page['next_cursor']}" if page["next_cursor"] else ""
    return orders
