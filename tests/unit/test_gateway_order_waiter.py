"""Waiting for an order's outcome."""

import asyncio
from collections.abc import Callable

import pytest

from eshop.contracts.proto.orders_v1_pb2 import Order
from gateway.http.problems import Problem
from gateway.services import order_waiter
from gateway.services.order_waiter import OrderWaiter

NEW = Order(order_id="1", status="NEW", version=1)
FINISHED = Order(order_id="1", status="FINISHED", version=2)
LONG = 20.0


class Service:
    """The order as the service has it."""

    def __init__(self, order: Order = NEW) -> None:
        self.order: Order | Problem = order
        self.asked = 0
        self.was_asked = asyncio.Event()

    async def read(self) -> Order:
        self.asked += 1
        self.was_asked.set()
        if isinstance(self.order, Problem):
            raise self.order
        return self.order


def seen(version: int) -> Callable[[], int]:
    return lambda: version


def attached() -> OrderWaiter:
    waiter = OrderWaiter()
    waiter.attached = True
    return waiter


async def test_an_order_that_has_ended_is_answered_at_once() -> None:
    service = Service(FINISHED)
    assert await attached().outcome("1", LONG, service.read, seen(0)) == FINISHED
    assert service.asked == 1


async def test_an_event_ends_the_wait() -> None:
    waiter, service = attached(), Service()
    waiting = asyncio.create_task(waiter.outcome("1", LONG, service.read, seen(0)))
    await service.was_asked.wait()
    waiter.tell("2")
    service.order = FINISHED
    waiter.tell("1")
    assert await waiting == FINISHED
    assert service.asked == 2


async def test_an_order_just_made_is_read_once_when_it_is_told_of() -> None:
    waiter, service = attached(), Service(FINISHED)
    waiting = asyncio.create_task(waiter.outcome("1", LONG, service.read, seen(0), NEW))
    await asyncio.sleep(0)
    assert service.asked == 0
    waiter.tell("1")
    assert await waiting == FINISHED
    assert service.asked == 1


async def test_an_end_told_before_the_wait_began_is_not_waited_for() -> None:
    waiter, service = attached(), Service(FINISHED)
    waiter.tell("1")
    async with asyncio.timeout(1):
        assert await waiter.outcome("1", LONG, service.read, seen(0), NEW) == FINISHED


async def test_when_no_events_arrive_the_service_is_asked_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(order_waiter, "RECHECK_SECONDS", 0.01)
    waiter, service = OrderWaiter(), Service()
    waiting = asyncio.create_task(waiter.outcome("1", LONG, service.read, seen(0), NEW))
    await service.was_asked.wait()
    service.order = FINISHED
    assert await waiting == FINISHED


async def test_the_wait_ends_with_the_order_as_it_is() -> None:
    assert await attached().outcome("1", 0.01, Service().read, seen(0)) == NEW


async def test_a_service_that_goes_down_in_mid_wait_does_not_unmake_the_order() -> None:
    waiter, service = attached(), Service()
    service.order = Problem("unavailable")
    assert await waiter.outcome("1", 0.01, service.read, seen(0), NEW) == NEW
    with pytest.raises(Problem):
        await waiter.outcome("1", 0.01, service.read, seen(0))


async def test_closing_ends_every_wait_now() -> None:
    waiter, service = attached(), Service()
    waiting = asyncio.create_task(waiter.outcome("1", LONG, service.read, seen(0)))
    await service.was_asked.wait()
    waiter.close()
    async with asyncio.timeout(1):
        assert await waiting == NEW
        assert await waiter.outcome("1", LONG, service.read, seen(0)) == NEW


async def test_past_the_bound_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_waiter, "WAITS_MAX", 0)
    async with asyncio.timeout(1):
        assert await attached().outcome("1", LONG, Service().read, seen(0)) == NEW


async def test_nothing_is_kept_of_a_wait_that_is_over() -> None:
    waiter = attached()
    await waiter.outcome("1", 0.01, Service().read, seen(0))
    assert not waiter._waiting
    assert waiter._count == 0


class Shown:
    """What the caller was shown, which a read can raise while it is under way."""

    def __init__(self, version: int = 0) -> None:
        self.version = version

    def __call__(self) -> int:
        return self.version


async def test_a_read_that_is_overtaken_by_what_was_shown_is_made_again() -> None:
    waiter, shown = attached(), Shown()
    answers = iter([NEW, FINISHED])

    async def read() -> Order:
        shown.version = 2  # the feed was faster
        return next(answers)

    assert await waiter.outcome("1", 0.0, read, shown) == FINISHED


async def test_a_wait_that_ends_by_its_time_never_answers_below_what_was_shown() -> None:
    waiter, shown, service = attached(), Shown(), Service()
    waiting = asyncio.create_task(waiter.outcome("1", 0.05, service.read, shown))
    await service.was_asked.wait()
    shown.version = 2
    service.order = Problem("unavailable")
    waiter.tell("1")
    with pytest.raises(Problem):
        await waiting


async def test_a_readers_own_tag_is_a_floor_that_the_database_may_deny() -> None:
    assert await attached().outcome("1", 0.0, Service().read, seen(99)) == NEW


async def test_an_older_read_does_not_replace_what_is_known() -> None:
    waiter = attached()
    answers = iter([FINISHED, NEW, NEW])

    async def read() -> Order:
        return next(answers)

    newer = Order(order_id="1", status="NEW", version=3)
    assert (await waiter.outcome("1", 0.0, read, seen(0), newer)).version == 3
    assert (await waiter.outcome("1", 0.0, read, seen(0), newer)).version == 3


async def test_a_post_says_what_it_made_even_if_the_service_is_gone_and_the_feed_was_faster() -> None:
    service = Service()
    service.order = Problem("unavailable")
    assert await attached().outcome("1", 0.01, service.read, seen(2), NEW) == NEW
