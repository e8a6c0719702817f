"""The order waiter: a request sleeps until an event of its order, then reads the order again."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from eshop.contracts.proto.orders_v1_pb2 import Order
from eshop.contracts.statuses import NEW
from gateway.http.problems import Problem

WAITS_MAX = 10_000
#: Without an event (Kafka is down, or the event was lost) the order is read again at this interval.
RECHECK_SECONDS = 5.0
#: Orders that became final lately: an order may end before its own request begins to wait.
ENDED_LATELY_MAX = 20_000


class OrderWaiter:
    """The waiting requests by order. ``attached`` tells whether events are arriving at all."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._count = 0
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._closing = False
        self.attached = False

    def tell(self, order_id: str) -> None:
        """Wake the requests that wait for this order: it is final."""
        self._ended[order_id] = None
        if len(self._ended) > ENDED_LATELY_MAX:
            self._ended.popitem(last=False)
        for changed in self._waiting.get(order_id, ()):
            changed.set()

    def tell_all(self) -> None:
        """Wake everyone to look again: events may have been missed."""
        for waiting in self._waiting.values():
            for changed in waiting:
                changed.set()

    def close(self) -> None:
        """End every wait now, and begin none."""
        self._closing = True
        self.tell_all()

    async def outcome(
        self,
        order_id: str,
        seconds: float,
        read: Callable[[], Awaitable[Order]],
        shown: Callable[[], int],
        made: Order | None = None,
    ) -> Order:
        """Return the order when it is final, or as it is after ``seconds``.

        ``read`` must read from the service itself. ``shown`` returns the version that the caller has seen:
        nothing older is returned. An error of ``read`` is raised if no such version is known. ``made`` is the
        order that this request has just created: it need not be read until its first event arrives, and if
        the service can't be reached any more, it is the response, because a POST must return its effect.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        known, failure = made, None
        with self._watch(order_id) as changed:
            if known is not None and self.attached and order_id not in self._ended:
                await self._sleep(changed, known, until)
            while True:
                changed.clear()
                try:
                    known, failure = _newer(known, await _read(read, shown)), None
                except Problem as problem:
                    if known is None:
                        raise
                    failure = problem
                if known.status != NEW or loop.time() >= until or self._is_full():
                    if failure is not None and made is None and known.version < shown():
                        raise failure
                    return known
                await self._sleep(changed, known, until)

    async def _sleep(self, changed: asyncio.Event, known: Order, until: float) -> None:
        left = until - asyncio.get_running_loop().time()
        if known.status != NEW or left <= 0 or self._is_full():
            return
        try:
            async with asyncio.timeout(min(left, RECHECK_SECONDS)):
                await changed.wait()
        except TimeoutError:
            return

    def _is_full(self) -> bool:
        return self._closing or self._count > WAITS_MAX

    @contextmanager
    def _watch(self, order_id: str) -> Iterator[asyncio.Event]:
        changed = asyncio.Event()
        waiting = self._waiting.setdefault(order_id, set())
        waiting.add(changed)
        self._count += 1
        try:
            yield changed
        finally:
            self._count -= 1
            waiting.discard(changed)
            if not waiting and self._waiting.get(order_id) is waiting:
                del self._waiting[order_id]


async def _read(read: Callable[[], Awaitable[Order]], shown: Callable[[], int]) -> Order:
    """Read; again if the caller was shown a newer version meanwhile, which a new read returns, too."""
    order = await read()
    return order if order.version >= shown() else await read()


def _newer(known: Order | None, order: Order) -> Order:
    return order if known is None or order.version >= known.version else known
