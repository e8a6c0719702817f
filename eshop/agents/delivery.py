"""From reading messages to acknowledging them: decode, handle, commit; after a fault, ``partition_retry``.

See docs/adr/0001-where-exactly-once-lives.md.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

import faust
from faust.types import EventT
from prometheus_client import Counter, Histogram

from eshop.agents.batches import ack_in_order, headers_of, message_of, origin_of
from eshop.agents.partition_retry import PartitionRetry
from eshop.agents.positions import Positions
from eshop.cancellation import cancel_and_wait
from eshop.contracts.bodies import UnknownEvent
from eshop.contracts.envelope import UndecodableMessage
from eshop.contracts.messages import Message, Origin
from eshop.crash_points import crash_point
from eshop.handlers.parking import Poison
from eshop.handlers.replay import Handler
from eshop.process.exit import end_process
from eshop.store.faults import cause_of
from eshop.store.unit_of_work import Store, UnitOfWork

logger = logging.getLogger(__name__)

#: Partition retries that try at the same time: the relay and the agent need connections, too.
TURNS_MAX = 3

_handled = Counter("eshop_messages_handled_total", "Messages whose effect is stored", ["agent"])
_parked = Counter("eshop_messages_parked_total", "Messages parked as dead letters", ["agent"])
#: Without a label for the type: types of other writers have no bound.
_unknown = Counter(
    "eshop_messages_unknown_type_total",
    "Messages of a type that only newer versions know: claimed and passed over",
    ["agent"],
)
_batch_size = Histogram(
    "eshop_batch_messages", "Messages in a transaction", ["agent"], buckets=(1, 2, 5, 10, 50, 100, 250, 500)
)

U = TypeVar("U", bound=UnitOfWork)
Park = Callable[[U, Poison], Awaitable[None]]
Event = EventT[Any]


class Delivery(Generic[U]):
    """Delivers messages to one handler, and acknowledges the messages whose effect is stored.

    All messages that are there go into one transaction. If it fails, each of its partitions goes on in a
    partition retry, so that no partition waits for the fault of another (head-of-line blocking).
    """

    def __init__(
        self,
        app: faust.App,
        store: Store[U],
        handler: Handler[U],
        park: Park[U],
        positions: Positions[U],
        name: str,
    ) -> None:
        self._app = app
        self._store = store
        self._handler = handler
        self._park = park
        self._positions = positions
        self._name = name
        self._partition_retries: dict[int, PartitionRetry] = {}
        self._tried_at: dict[int, float] = {}
        self._batch_size, self._handled = _batch_size.labels(name), _handled.labels(name)
        self.turn = asyncio.Semaphore(TURNS_MAX)

    async def deliver(self, events: Sequence[Event]) -> None:
        """Handle the events, or hand them to the retries of their partitions."""
        rest = [event for event in events if not self._is_retried(event)]
        epoch = self._positions.epoch
        try:
            if rest:
                await self.handle(rest)
        except Exception as error:  # noqa: BLE001  the retries find out what to do about it
            logger.info("%s goes on partition by partition after: %r", self._name, error)
            if epoch == self._positions.epoch:
                self._start_retries(rest)

    async def handle(self, events: Sequence[Event]) -> None:
        """Handle the events in one transaction and acknowledge them, or raise the fault."""
        messages = [message_of(event) for event in events]
        self._batch_size.observe(len(messages))

        async def effect(uow: U) -> None:
            await self._handler(uow, messages)
            crash_point("mid-batch")

        await self._commit(events, effect)
        self._handled.inc(len(messages))
        self._count_unknown(messages)

    def _count_unknown(self, messages: Sequence[Message]) -> None:
        types = [message.envelope.type for message in messages if isinstance(message.body, UnknownEvent)]
        if types:
            _unknown.labels(self._name).inc(len(types))
            logger.warning(
                "%s passed over %d messages of unknown types: %s", self._name, len(types), types[0]
            )

    async def park(self, event: Event, error: Exception) -> None:
        """Park a message that can never be handled. Raises TooManyParked and the faults of the database."""
        poison = _poison(event, error)
        await self._commit([event], lambda uow: self._park(uow, poison))
        _parked.labels(self._name).inc()
        logger.error("%s parked %s: %s: %.300s", self._name, poison.origin, poison.cause, poison.error)

    async def _commit(self, events: Sequence[Event], effect: Callable[[U], Awaitable[None]]) -> None:
        """Commit the effect together with the positions of the events, then acknowledge the events."""
        origins = [origin_of(event) for event in events]

        async def with_positions(uow: U) -> None:
            await effect(uow)
            await uow.watermarks.advance(origins, self._positions.holes)
            crash_point("before-commit")

        self._tried(origins)
        try:
            await self._store.transact(with_positions)
        finally:
            self._tried(origins)
        crash_point("after-commit-before-ack")
        ack_in_order(self._app, events)  # last: a crash before it means redelivery
        self._positions.passed(origins)

    def tried_at(self, partition: int) -> float:
        """Return when the last attempt on the partition began or ended, by the monotonic clock."""
        return self._tried_at.get(partition, 0.0)

    async def stop(self) -> None:
        """Drop the messages of the retries without acknowledging them: they are redelivered."""
        await cancel_and_wait(*(retry.task for retry in self._partition_retries.values()))

    def _tried(self, origins: Sequence[Origin]) -> None:
        now = time.monotonic()
        for origin in origins:
            self._tried_at[origin.partition] = now

    def _is_retried(self, event: Event) -> bool:
        """Hand the event to the retry of its partition, if there is one, to keep the order."""
        retry = self._partition_retries.get(event.message.partition)
        if retry is not None:
            retry.add(event)
        return retry is not None

    def _start_retries(self, events: Sequence[Event]) -> None:
        groups: dict[int, list[Event]] = defaultdict(list)
        for event in events:
            groups[event.message.partition].append(event)
        for partition, group in groups.items():
            retry = PartitionRetry(self._app, self, self._positions, self._name, group)
            self._partition_retries[partition] = retry
            retry.task.add_done_callback(lambda task, at=partition: self._end_retry(at, task))  # type: ignore[misc]

    def _end_retry(self, partition: int, task: "asyncio.Task[None]") -> None:
        retry = self._partition_retries.pop(partition)
        if not task.cancelled() and (error := task.exception()) is not None:
            end_process(f"{self._name} failed: {error!r}")
        if not self._app.should_stop and (left := retry.take_all()):
            self._start_retries(left)  # they came while it ended


def _poison(event: Event, error: Exception) -> Poison:
    read = event.message
    is_undecodable = isinstance(error, UndecodableMessage)
    return Poison(
        origin_of(event),
        read.key,
        None if read.value is None else bytes(read.value),
        tuple(headers_of(event)),
        error.cause if isinstance(error, UndecodableMessage) else cause_of(error),
        str(error) or repr(error),
        None if is_undecodable else message_of(event),
    )
