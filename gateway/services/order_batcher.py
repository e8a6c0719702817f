"""The order batcher: creations that are in flight go to the orders service as one call.

A lone order goes at once. While `CALLS_MAX` calls are out, further orders gather, and leave together when a
call returns. No order waits for a batch to fill.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from eshop.contracts.proto.orders_v1_pb2 import CreateOrder, CreateOrderResult
from gateway.http.problems import Problem

CALLS_MAX = 2
ORDERS_PER_CALL_MAX = 500
#: Well below gRPC's default of 4 MiB a message.
BYTES_PER_CALL_MAX = 2 * 1024 * 1024
QUEUE_MAX = 5_000
#: An order that waits longer for a place in a call gets a 503.
QUEUE_SECONDS_MAX = 5.0

Send = Callable[[Sequence[CreateOrder]], Awaitable[Sequence[CreateOrderResult]]]
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Waiting:
    order: CreateOrder
    answer: asyncio.Future[CreateOrderResult]
    size_bytes: int
    leave_at: float


class OrderBatcher:
    """The queue before `CreateOrders`.

    ``send`` has its own deadline, and returns one result each, in order, or raises a Problem.
    """

    def __init__(self, send: Send, queue_max: int = QUEUE_MAX) -> None:
        self._send = send
        self._queue_max = queue_max
        self._queue: deque[_Waiting] = deque()
        self._calls: set[asyncio.Task[None]] = set()

    async def create(self, order: CreateOrder) -> CreateOrderResult:
        """Return the result of this order; raise the Problem of its call, or 503 if the queue is full.

        A cancelled caller leaves its order in the call: the results of the others come all the same.
        """
        if len(self._queue) >= self._queue_max:
            raise Problem("unavailable", "Too many orders are waiting.")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[CreateOrderResult] = loop.create_future()
        self._queue.append(_Waiting(order, answer, order.ByteSize(), loop.time() + QUEUE_SECONDS_MAX))
        self._start_calls()
        return await answer

    async def close(self) -> None:
        """Wait until every caller has a result."""
        while self._calls:
            await asyncio.wait(self._calls)

    def _start_calls(self) -> None:
        while len(self._calls) < CALLS_MAX and (batch := self._next_batch()):
            call = asyncio.create_task(self._call(batch))
            self._calls.add(call)
            call.add_done_callback(self._returned)

    def _returned(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        self._start_calls()

    def _next_batch(self) -> list[_Waiting]:
        now = asyncio.get_running_loop().time()
        batch: list[_Waiting] = []
        size_bytes = 0
        while self._queue and len(batch) < ORDERS_PER_CALL_MAX:
            if now > self._queue[0].leave_at:
                _fail(self._queue.popleft(), Problem("unavailable", "The order waited too long."))
                continue
            size_bytes += self._queue[0].size_bytes
            if batch and size_bytes > BYTES_PER_CALL_MAX:
                break
            batch.append(self._queue.popleft())
        return batch

    async def _call(self, batch: list[_Waiting]) -> None:
        try:
            results = await self._send([waiting.order for waiting in batch])
        except Problem as problem:
            if problem.code == "invalid" and len(batch) > 1:
                # One order broke the call; the others must not pay for it.
                middle = len(batch) // 2
                await self._call(batch[:middle])
                await self._call(batch[middle:])
                return
            self._fail_all(batch, problem)
        except Exception:
            logger.exception("a call of CreateOrders failed")
            self._fail_all(batch, Problem("internal"))
        else:
            for waiting, result in zip(batch, results, strict=True):
                if not waiting.answer.done():
                    waiting.answer.set_result(result)

    @staticmethod
    def _fail_all(batch: Sequence[_Waiting], problem: Problem) -> None:
        for waiting in batch:
            _fail(waiting, problem.again())


def _fail(waiting: _Waiting, problem: Problem) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(problem)
