"""The relay beside a broker that fails: it goes on trying, shows signs of life, and never hangs."""

import asyncio
from contextlib import suppress

import pytest

from eshop.agents import watchdog as watchdogs
from eshop.agents.watchdog import SilenceWatch
from eshop.cancellation import cancel_and_wait
from eshop.handlers.orders import place_orders
from eshop.relay import relay as relays
from eshop.relay.publisher import Publisher
from eshop.relay.relay import Relay
from eshop.store import database as databases
from eshop.store.database import Database
from eshop.store.lease import take_lease
from eshop.store.unit_of_work import OrdersUnitOfWork, Store
from tests.support.builders import place_order

Orders = Store[OrdersUnitOfWork]
NOBODY = "127.0.0.1:1"
ROUNDS = 300
#: Far more than a round takes; a relay that hangs is silent for ever.
SILENCE_SECONDS_MAX = 20.0


def failures() -> float:
    """Return how many rounds have failed."""
    return float(relays._failures._value.get())


async def until_failed(count: float) -> None:
    """Return when a number of rounds have failed; raise TimeoutError if none fails for a while."""
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
    relay = Relay(orders.database, orders.notifier, Publisher(NOBODY, ""), "here")
    running, begun = asyncio.create_task(relay.run()), failures()
    try:
        await until_failed(begun + ROUNDS)
        await SilenceWatch(lambda: relay.alive_at, "the relay").check()  # a failure is a sign of life
    finally:
        relay.stop()
        ended, _ = await asyncio.wait({running}, timeout=SILENCE_SECONDS_MAX)
    assert ended


async def test_relay_that_is_frozen_shows_no_sign_of_life(
    orders: Orders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it hangs in: here in something that was taken for bounded."""
    reached, reasons = asyncio.Event(), list[str]()

    async def hang(*_: object) -> None:
        reached.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(relays.Relay, "_round", hang)
    monkeypatch.setattr(watchdogs, "SILENT_SECONDS", 0.2)
    monkeypatch.setattr(watchdogs, "end_process", reasons.append)
    relay = Relay(orders.database, orders.notifier, Publisher(NOBODY, ""), "here")
    watch, running = SilenceWatch(lambda: relay.alive_at, "the relay"), asyncio.create_task(relay.run())
    await reached.wait()
    async with asyncio.timeout(SILENCE_SECONDS_MAX):
        while not reasons:
            await asyncio.sleep(0.05)
            await watch.look()
    assert "the relay shows no sign of life" in reasons[0]
    await cancel_and_wait(running)


async def test_standby_that_only_waits_for_the_lease_is_alive(orders: Orders) -> None:
    assert await orders.database.transact(lambda session: take_lease(session, "other", 3600.0))
    relay = Relay(orders.database, orders.notifier, Publisher(NOBODY, ""), "here")
    running, seen = asyncio.create_task(relay.run()), relay.alive_at
    async with asyncio.timeout(SILENCE_SECONDS_MAX):
        for _ in range(2):
            while relay.alive_at == seen:
                await asyncio.sleep(0.01)
            seen = relay.alive_at
    relay.stop()
    await running


async def test_relay_listens_once_for_its_whole_life(orders: Orders, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    async def listen(*_: object) -> None:
        begun.append(1)
        await asyncio.Event().wait()

    monkeypatch.setattr(relays, "listen", listen)
    monkeypatch.setattr(relays, "BACKOFF_SECONDS_MAX", 0.001)
    await orders.transact(lambda uow: place_orders(uow, [place_order("ann")], 60))
    relay = Relay(orders.database, orders.notifier, Publisher(NOBODY, ""), "here")
    running, before = asyncio.create_task(relay.run()), failures()
    await until_failed(before + 5)
    relay.stop()
    await running
    assert begun == [1]


async def test_database_is_left_although_a_transaction_does_not_end(
    orders: Orders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "CLOSE_SECONDS_MAX", 0.2)
    database, reached = Database(orders.database.url, "eshop-test"), asyncio.Event()
    await database.open()

    async def hang(_session: object) -> None:
        reached.set()
        await asyncio.Event().wait()

    waiting = asyncio.create_task(database.transact(hang))
    await reached.wait()
    with suppress(TimeoutError):
        await database.close()
    await cancel_and_wait(waiting, *database._units)
