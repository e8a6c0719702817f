"""Gathering batcher: who goes when, with whom, and what each is told."""

import asyncio
from collections.abc import Sequence

import pytest

from eshop.contracts.proto.orders_v1_pb2 import CreateOrder, CreateOrderResult, Order
from gateway.http.problems import Problem
from gateway.services import order_batcher
from gateway.services.order_batcher import OrderBatcher


class Service:
    """Stands in for the orders service: calls are held until let go."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.arrived = asyncio.Semaphore(0)
        self.gates: list[asyncio.Future[None]] = []

    async def send(self, orders: Sequence[CreateOrder]) -> Sequence[CreateOrderResult]:
        self.calls.append([order.amount_minor for order in orders])
        self.gates.append(asyncio.get_running_loop().create_future())
        self.arrived.release()
        await self.gates[-1]
        return [CreateOrderResult(order=Order(amount_minor=order.amount_minor)) for order in orders]

    async def calls_arrive(self, count: int) -> None:
        for _ in range(count):
            await self.arrived.acquire()


def ask(gathering: OrderBatcher, *amounts: int) -> list[asyncio.Task[CreateOrderResult]]:
    return [
        asyncio.create_task(gathering.create(CreateOrder(amount_minor=amount)), name=str(amount))
        for amount in amounts
    ]


async def test_a_lone_request_goes_at_once() -> None:
    service = Service()
    (one,) = ask(OrderBatcher(service.send), 1)
    await service.calls_arrive(1)
    assert service.calls == [[1]]
    service.gates[0].set_result(None)
    assert (await one).order.amount_minor == 1


async def test_newcomers_gather_while_calls_are_out_and_each_gets_its_own_answer() -> None:
    service = Service()
    gathering = OrderBatcher(service.send)
    asked = ask(gathering, *range(10))
    await service.calls_arrive(2)
    assert service.calls == [[0], [1]]
    service.gates[0].set_result(None)
    await service.calls_arrive(1)
    assert service.calls[2] == list(range(2, 10))
    for gate in service.gates[1:]:
        gate.set_result(None)
    answers = await asyncio.gather(*asked)
    assert [answer.order.amount_minor for answer in answers] == list(range(10))


async def test_a_call_is_bounded_in_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_batcher, "ORDERS_PER_CALL_MAX", 3)
    service = Service()
    asked = ask(OrderBatcher(service.send), *range(9))
    await service.calls_arrive(2)
    for gate in list(service.gates):
        gate.set_result(None)
    await service.calls_arrive(2)
    assert service.calls[2:] == [[2, 3, 4], [5, 6, 7]]
    for gate in service.gates[2:]:
        gate.set_result(None)
    await service.calls_arrive(1)
    service.gates[4].set_result(None)
    await asyncio.gather(*asked)


async def test_a_call_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_batcher, "BYTES_PER_CALL_MAX", 1)
    monkeypatch.setattr(order_batcher, "CALLS_MAX", 1)
    service = Service()
    asked = ask(OrderBatcher(service.send), 1, 2, 3)
    for number in range(3):
        await service.calls_arrive(1)
        service.gates[number].set_result(None)
    await asyncio.gather(*asked)
    assert service.calls == [[1], [2], [3]]


async def test_a_caller_who_leaves_cancels_nobody() -> None:
    service = Service()
    asked = ask(OrderBatcher(service.send), *range(5))
    await service.calls_arrive(2)
    asked[0].cancel()
    asked[3].cancel()
    for gate in list(service.gates):
        gate.set_result(None)
    await service.calls_arrive(1)
    assert service.calls[2] == [2, 3, 4]
    service.gates[2].set_result(None)
    assert [(await asked[number]).order.amount_minor for number in (1, 2, 4)] == [1, 2, 4]


async def test_everyone_in_a_failed_call_is_told_and_nobody_else() -> None:
    service = Service()
    asked = ask(OrderBatcher(service.send), *range(4))
    await service.calls_arrive(2)
    service.gates[0].set_result(None)
    await service.calls_arrive(1)
    service.gates[2].set_exception(Problem("slow"))
    service.gates[1].set_result(None)
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [isinstance(answer, Problem) for answer in answers] == [False, False, True, True]
    assert answers[2] is not answers[3]


async def test_a_bug_in_a_call_leaves_nobody_without_an_answer() -> None:
    async def broken(orders: Sequence[CreateOrder]) -> Sequence[CreateOrderResult]:
        raise ZeroDivisionError

    with pytest.raises(Problem) as refused:
        await OrderBatcher(broken).create(CreateOrder(amount_minor=1))
    assert refused.value.code == "internal"


async def test_one_order_that_breaks_its_call_is_refused_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_batcher, "CALLS_MAX", 1)
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    begun = asyncio.Event()

    async def picky(orders: Sequence[CreateOrder]) -> Sequence[CreateOrderResult]:
        begun.set()
        await gate
        if any(order.amount_minor == 3 for order in orders):
            raise Problem("invalid")
        return [CreateOrderResult(order=Order(amount_minor=order.amount_minor)) for order in orders]

    asked = ask(OrderBatcher(picky), *range(6))
    await begun.wait()
    gate.set_result(None)
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [isinstance(answer, Problem) for answer in answers] == [number == 3 for number in range(6)]


async def test_a_full_queue_is_said_at_once() -> None:
    service = Service()
    gathering = OrderBatcher(service.send, queue_max=2)
    asked = ask(gathering, 1, 2, 3, 4)
    await service.calls_arrive(2)
    with pytest.raises(Problem) as refused:
        await gathering.create(CreateOrder(amount_minor=5))
    assert (refused.value.code, refused.value.kind.retry) == ("unavailable", True)
    for gate in list(service.gates):
        gate.set_result(None)
    await service.calls_arrive(1)
    service.gates[2].set_result(None)
    await asyncio.gather(*asked)


async def test_who_waited_too_long_for_a_call_is_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_batcher, "QUEUE_SECONDS_MAX", -1.0)
    service = Service()
    with pytest.raises(Problem) as refused:
        await OrderBatcher(service.send).create(CreateOrder(amount_minor=1))
    assert refused.value.code == "unavailable"
    assert service.calls == []


async def test_closing_waits_for_every_answer() -> None:
    service = Service()
    gathering = OrderBatcher(service.send)
    asked = ask(gathering, 1, 2, 3)
    await service.calls_arrive(2)
    closing = asyncio.create_task(gathering.close())
    service.gates[0].set_result(None)
    await service.calls_arrive(1)
    assert not closing.done()
    service.gates[1].set_result(None)
    service.gates[2].set_result(None)
    await closing
    assert all(one.done() or not one.cancelled() for one in asked)
    await asyncio.gather(*asked)
