"""The relay beside a broker that fails: it goes on trying, shows signs of life, and never hangs."""

import asyncio

import pytest

from eshop.handlers.orders import place_orders
from eshop.relay import relay as relays
from eshop.relay.publisher import Publisher
from eshop.relay.relay import Relay
from eshop.store.units import OrdersUnitOfWork, Store
from tests.builders import place_order

Orders = Store[OrdersUnitOfWork]
NOBODY = "127.0.0.1:1"
ROUNDS = 300
#: Far more than a round takes; a relay that hangs is silent for ever.
SILENCE_SECONDS_MAX = 20.0


def failures() -> float:
    """Return how many rounds have failed."""
    return float(relays._failures._value.get())


async def until_failed(count: float) -> None:
    """Return when so many rounds have failed; raise TimeoutError if none fails for a while."""
    while (seen := failures()) < count:
        async with asyncio.timeout(SILENCE_SECONDS_MAX):
            while failures() == seen:
                await asyncio.sleep(0.01)


async def test_relay_whose_broker_fails_at_once_never_hangs(
    orders: Orders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relays, "BACKOFF_SECONDS", 0.001)
    monkeypatch.setattr(relays, "BACKOFF_SECONDS_MAX", 0.001)
    await orders.transact(lambda uow: place_orders(uow, [place_order("ann")], 60))
    relay = Relay(orders.database, orders.doorbell, Publisher(NOBODY, ""), "here")
    running, begun = asyncio.create_task(relay.run()), failures()
    try:
        await until_failed(begun + ROUNDS)
    finally:
        relay.stop()
        ended, _ = await asyncio.wait({running}, timeout=SILENCE_SECONDS_MAX)
    assert ended
