"""Several of each kind: all of them carry load."""

import asyncio
import re

import aiohttp

from tests.support.builders import new_id
from tests.support.shop_process import Shop, Shopper

USERS = 60
COUNTERS = {
    "orders": r'^eshop_messages_handled_total\{agent="orders\.record_outcomes"\} (\S+)',
    "payments": r'^eshop_messages_handled_total\{agent="payments\.settle_orders"\} (\S+)',
    "gateway": r'^gateway_requests_total\{.*method="POST".*\} (\S+)',
}


async def test_every_worker_and_gateway_carries_load(shop: Shop) -> None:
    async with aiohttp.ClientSession() as session:

        async def loads() -> dict[str, float]:
            return {
                name: await counted(session, ports["http"], COUNTERS[kind])
                for name, ports in shop.ports.items()
                if (kind := name.partition("-")[0]) in COUNTERS
            }

        before = await loads()
        await asyncio.gather(*(go_shopping(session, shop, number) for number in range(USERS)))
        after = await loads()
        assert len(after) == 6
        assert [name for name in after if after[name] <= before[name]] == []


async def counted(session: aiohttp.ClientSession, port: int, counter: str) -> float:
    """Return the sum of a counter of one process."""
    async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
        return sum(float(value) for value in re.findall(counter, await answer.text(), re.MULTILINE))


async def go_shopping(session: aiohttp.ClientSession, shop: Shop, number: int) -> None:
    """Open an account and pay an order, at one of the gateways."""
    gateways = shop.gateways()
    shopper = Shopper(session, gateways[number % len(gateways)], f"user-{new_id()}")
    await shopper.open_account(10)
    order = await shopper.order(10, "k")
    assert (await shopper.until_final(order["order_id"]))["status"] == "FINISHED"
