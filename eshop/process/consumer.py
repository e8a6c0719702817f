"""Faust's consumer, with a say in where it reads. What is private of Faust's and needed for it is here.

See docs/adr/0006-faust-as-it-is.md.
"""

import asyncio
from bisect import bisect_left
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import faust
from faust.transport.drivers.aiokafka import Consumer, Transport
from faust.types import TP

from eshop.kafka.record_batches import tolerate_unreadable

#: Less than a request's bound: see ``SeekingConsumer.perform_seek``.
SEEK_SECONDS_MAX = 20.0


class SeekingConsumer(Consumer):
    """A consumer that asks its app after each of Faust's own seeks.

    Faust seeks to the committed offsets after every signal of an assignment: a seek made before is lost.
    """

    def on_init(self) -> None:
        """Prepare."""
        tolerate_unreadable()
        super().on_init()
        self._parked = asyncio.Event()

    async def perform_seek(self) -> None:
        """Seek to the committed offsets, and then to where the app knows better.

        Raises TimeoutError well before Faust's own bound, at which its recovery would end silently and for
        ever, with every partition waiting: what is raised ends the worker, and the next one begins anew.
        """
        async with asyncio.timeout(SEEK_SECONDS_MAX):
            await self.put_at_committed()
            await cast("Any", self.app).sought(self)

    async def put_at_committed(self) -> None:
        """Seek to the committed offsets and no further, for whoever goes on from there by himself."""
        await super().perform_seek()

    async def until_parked(self) -> None:
        """Return when nothing is being fetched, with the flow stopped. Raises TimeoutError.

        A fetch that is cut off goes on in the consumer's thread, past a seek, and its messages are lost.
        """
        async with asyncio.timeout(SEEK_SECONDS_MAX):
            await self._parked.wait()

    async def _wait_next_records(self, timeout: float) -> Any:  # noqa: ASYNC109  Faust's signature
        if not self.flow_active:
            self._parked.set()
        try:
            return await super()._wait_next_records(timeout)
        finally:
            self._parked.clear()

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Let the partitions be read once the flow is resumed, which Faust does next, after a seek.

        Where a table was recovered the flow runs already. What it brought between the seek and Faust's last
        step would be lost: that step empties the agents' queues.
        """
        self.stop_flow()
        super().resume_partitions(tps)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek to the committed offsets, and to the start where there is none.

        aiokafka leaves a partition without one where it stands. A fetch that was under way when the partition
        came stands past messages that Faust dropped: nobody would read them before the next assignment.
        """
        committed = await super().seek_to_committed()
        never = [tp for tp, offset in committed.items() if not offset and not self._is_changelog_tp(tp)]
        if never:
            await self._thread.seek_to_beginning(*never)
        return committed

    def _new_offset(self, tp: TP) -> int | None:
        """Return up to where all is acknowledged or in no log, or None where nothing new is.

        Faust writes a gap down offset by offset: one of the size that a retention leaves is out of memory.
        """
        acked, gaps = self._acked[tp], self._gap[tp]
        if not acked:
            return None
        acked.sort()
        runs = sorted([(at, at + 1) for at in acked] + [(gap.begin, gap.end) for gap in gaps])
        while runs[-1][0] > acked[-1]:
            runs.pop()  # a gap that nothing behind it is acknowledged of
        end: int = runs[0][0]
        committed = self._committed_offset[tp]
        if committed and end - committed > 1:
            return None
        for begin, after in runs:
            if begin > end:
                break
            end = max(end, after)
        done = bisect_left(acked, end)
        self._acked_index[tp].difference_update(acked[:done])
        del acked[:done]
        gaps.chop(0, end)
        return end

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Look at nothing: Faust's detector crashes the worker at a partition that is just being sought.

        Whether partitions make progress is the watchdog's.
        """

    def committed(self, partition: TP) -> int | None:
        """Return the committed offset as of the last seek or commit."""
        return self._committed_offset[partition]

    async def put_at(self, offsets: Mapping[TP, int]) -> None:
        """Read on from these offsets, and take everything before them for committed, and nothing behind.

        Faust ignores acknowledgements below what it takes for committed, and counts a gap as handled.
        """
        await self.seek_wait(offsets)
        for partition, offset in offsets.items():
            self._committed_offset[partition] = offset or None
            for known in (self._acked, self._acked_index, self._gap):
                known.pop(partition, None)
        await self._commit(offsets)  # the broker is to know it, too, even if no message comes for long


class SeekingTransport(Transport):
    """Faust's transport, with that consumer."""

    Consumer = SeekingConsumer


@asynccontextmanager
async def nothing_read(app: faust.App) -> AsyncIterator[None]:
    """Stop reading, and drop what was read ahead; in the end read on, from wherever a seek has put it.

    An assignment that begins meanwhile reads on by itself. Raises TimeoutError where reading does not stop.
    """
    consumer, generation = cast("SeekingConsumer", app.consumer), app.consumer_generation_id
    consumer.stop_flow()
    app.flow_control.suspend()
    try:
        await consumer.until_parked()
        app.flow_control.clear()
        yield
    finally:
        if not app.rebalancing and not app.should_stop and app.consumer_generation_id == generation:
            app.flow_control.resume()
            consumer.resume_flow()


SeekHook = Callable[[SeekingConsumer], Awaitable[None]]
