"""A reader's positions in the log, compared with the watermarks in the database.

Kafka's committed offsets may be ahead of the effects in the database, after a move by hand or a premature
acknowledgement. The watermarks show the gap, and the reader seeks back.

See docs/adr/0022-gaps-are-read-again.md.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

import faust
from faust.types import TP
from prometheus_client import Counter

from eshop.contracts.messages import Origin
from eshop.process.consumer import SEEK_SECONDS_MAX, SeekingConsumer, nothing_read
from eshop.store.faults import WatermarkGap
from eshop.store.unit_of_work import Store, UnitOfWork
from eshop.store.watermarks import Hole

logger = logging.getLogger(__name__)

RETRY_SECONDS = 0.5

_corrections = Counter(
    "eshop_watermark_corrections_total", "Seeks of a reader to its watermark", ["agent", "why"]
)
_lost = Counter("eshop_messages_lost_total", "Messages the broker dropped before they were read", ["agent"])

U = TypeVar("U", bound=UnitOfWork)
#: Topic, partition, offset: returns the offset of the log's next message if the log begins before the given
#: offset.
NextOffset = Callable[[str, int, int], Awaitable[int | None]]


@dataclass(frozen=True, slots=True)
class Correction:
    """The offset at which a partition must be read, the reason, and the number of messages that are lost."""

    offset: int
    why: str
    resets_watermark: bool = False
    lost: int = 0


def judge(mark: int, committed: int | None, start: int, end: int) -> Correction | None:
    """Compare a partition's watermark and committed offset with the log; return None if they agree.

    ``mark`` is the next offset whose effect is not stored, 0 without any. A message that is read twice is
    harmless, a message that is passed over is not: in doubt, the partition is read from its start.
    """
    if mark > end:
        return Correction(start, "the log ends before the watermark: truncated, or created again", True)
    if mark < start:
        lost = start - mark if mark or committed else 0
        return Correction(start, "the log begins after the watermark", True, lost)
    if committed is None:
        return Correction(start, "the group has no offset", True) if mark > start else None
    if committed > mark:
        return Correction(mark, "the committed offset is past the watermark")
    return None


class Positions(Generic[U]):
    """The positions of one agent in its topic."""

    def __init__(
        self, app: faust.App, store: Store[U], topic: str, next_offset: NextOffset, name: str
    ) -> None:
        self._app = app
        self._next_offset = next_offset
        self._store = store
        self._topic = topic
        self._name = name
        self._seeking = asyncio.Lock()
        #: Grows with every seek: messages that were read before a seek are read again.
        self.epoch = 0
        #: The ends of gaps in which the log itself has no message: these are accepted.
        self.holes: set[Hole] = set()

    async def align(self, consumer: SeekingConsumer) -> None:
        """Seek to the watermark of partitions that are past it. Raises the database's faults."""
        partitions = self.assigned(consumer)
        if not partitions:
            return
        marks, starts, ends = await self.bounds(consumer, partitions)
        corrections: dict[TP, Correction] = {}
        for tp in partitions:
            mark, committed = marks.get(tp.partition, 0), consumer.committed(tp)
            correction = judge(mark, committed, starts[tp], ends[tp])
            if correction is not None:
                corrections[tp] = correction
                self._report(tp, mark, committed, correction)
        reset = {tp.partition: c.offset for tp, c in corrections.items() if c.resets_watermark}
        if reset:
            await self._store.transact(lambda uow: uow.watermarks.reset(self._topic, reset))
        if corrections:
            await consumer.put_at({tp: correction.offset for tp, correction in corrections.items()})

    def assigned(self, consumer: SeekingConsumer) -> list[TP]:
        """Return the topic's partitions that are assigned to this worker."""
        return [tp for tp in consumer.assignment() if tp.topic == self._topic]

    async def bounds(
        self, consumer: SeekingConsumer, partitions: Sequence[TP]
    ) -> tuple[dict[int, int], Mapping[TP, int], Mapping[TP, int]]:
        """Return the watermarks by partition, and the first and last offset of the log."""
        marks = await self._store.read(lambda uow: uow.watermarks.read(self._topic))
        starts = await consumer.earliest_offsets(*partitions)
        return marks, starts, await consumer.highwaters(*partitions)

    def _report(self, tp: TP, mark: int, committed: int | None, correction: Correction) -> None:
        _corrections.labels(self._name, correction.why).inc()
        _lost.labels(self._name).inc(correction.lost)
        logger.log(
            logging.WARNING if committed is None else logging.ERROR,
            "%s reads %s/%d from %d: %s (watermark %d, committed %s%s)",
            *(self._name, tp.topic, tp.partition, correction.offset, correction.why, mark, committed),
            f", {correction.lost} messages are lost" if correction.lost else "",
        )

    async def is_hole(self, gap: WatermarkGap) -> bool:
        """Read whether the log itself has no message in the gap, and accept the gap then.

        Raises the broker's faults.
        """
        topic, partition, expected, found = gap.hole
        if await self._next_offset(topic, partition, expected) != found:
            return False
        logger.warning("%s: %s, where the log has no message: accepted", self._name, gap)
        self.holes.add(gap.hole)
        return True

    async def seek_back(self, epoch: int) -> bool:
        """Drop messages that were read ahead; read on from the committed offsets or earlier watermarks.

        ``epoch`` is the epoch in which the caller saw the gap: if it has changed, a later seek has handled
        the gap. Returns False during a rebalance, whose assignment seeks anyway. Raises TimeoutError.
        """
        async with self._seeking:
            if epoch != self.epoch:
                return True
            if self._app.rebalancing:
                return False
            logger.error("%s seeks back: messages were passed over", self._name)
            async with nothing_read(self._app):
                sought = await self._sought()
                self.epoch += sought
            return sought

    async def _sought(self) -> bool:
        """Seek, however long database or broker are away; return False if an assignment seeks instead."""
        consumer, generation = cast("SeekingConsumer", self._app.consumer), self._app.consumer_generation_id
        while not (self._app.rebalancing or self._app.should_stop):
            try:
                async with asyncio.timeout(SEEK_SECONDS_MAX):
                    await consumer.put_at_committed()
                    await self.align(consumer)
            except Exception as error:  # noqa: BLE001  reading on without it would pass messages over
                logger.warning("%s can't seek yet: %r", self._name, error)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return self._app.consumer_generation_id == generation
        return False

    def passed(self, origins: Iterable[Origin]) -> None:
        """Forget the holes before these offsets, whose effect is stored."""
        if self.holes:
            ends = {(at.topic, at.partition): at.offset for at in origins}
            self.holes -= {hole for hole in self.holes if hole[3] <= ends.get(hole[:2], -1)}
