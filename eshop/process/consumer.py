"""Faust's consumer with control of its positions. Uses of Faust's private names are here.

See docs/adr/0006-faust-as-it-is.md and docs/adr/0024-a-fetch-is-queued-whole.md.
"""

import asyncio
import logging
from bisect import bisect_left
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import faust
from aiokafka.errors import ConsumerStoppedError
from faust.transport.drivers.aiokafka import Consumer, Transport
from faust.types import TP, Message
from faust.types.tuples import ack_lock
from mode import ServiceT
from mode.utils.futures import notify

from eshop.kafka.group_errors import heed_group_errors
from eshop.kafka.record_batches import tolerate_unreadable

#: Less than a request's bound: see ``SeekingConsumer.perform_seek``.
SEEK_SECONDS_MAX = 20.0
#: How long a fetch waits for the first message.
FETCH_SECONDS = 1.0
#: Messages that are queued in one go: a full batch of an agent, and a few milliseconds.
QUEUED_AT_ONCE = 500
#: How often a full queue is looked at: far less than its messages take.
FULL_SECONDS = 0.005

Records = Mapping[TP, list[Any]]

logger = logging.getLogger(__name__)


class SeekingConsumer(Consumer):
    """A consumer that calls its app after each seek of Faust.

    Faust seeks to the committed offsets after every signal of an assignment: an earlier seek is lost.
    """

    def on_init(self) -> None:
        """Prepare."""
        heed_group_errors()
        tolerate_unreadable()
        super().on_init()
        self._parked = asyncio.Event()

    async def perform_seek(self) -> None:
        """Seek to the committed offsets, then to the positions that the app knows better.

        Raises TimeoutError well before Faust's own bound, at which Faust's recovery would end silently, with
        every partition waiting without an end. The exception ends the worker, and the next worker starts
        again.
        """
        async with asyncio.timeout(SEEK_SECONDS_MAX):
            await self.put_at_committed()
            await cast("Any", self.app).sought(self)

    async def put_at_committed(self) -> None:
        """Seek to the committed offsets only, for a caller that continues from there."""
        await super().perform_seek()

    async def until_parked(self) -> None:
        """Return after all fetches have ended, with the flow stopped. Raises TimeoutError.

        A fetch that is cut off continues in the consumer's thread, past a seek, and its messages are lost.
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

    async def _drain_messages(self, fetcher: ServiceT) -> None:
        """Read until the fetcher stops. All messages of a fetch are queued before an agent runs.

        Faust awaits four tasks for each message, and an agent takes the first few messages of a fetch as a
        batch. A stopped flow ends the wait for a full queue; the rest of the fetch is dropped, and read again
        after the seek that follows every stop.
        """
        app = self.app
        try:
            while not (self._stopped.is_set() or fetcher.should_stop):
                await asyncio.sleep(0)  # the agent takes what the last fetch has brought
                records, active = await self._wait_next_records(FETCH_SECONDS)
                if records is None or self.should_stop:
                    continue
                if not self.flow_active:
                    await self._seek_while_stopped()
                elif records:
                    queued = self._queue_all(records, active, app.consumer_generation_id)
                    await self.wait_first(queued, self.suspend_flow.wait())
        except (ConsumerStoppedError, asyncio.CancelledError):
            if not app.should_stop:
                raise
        except Exception:
            logger.exception("reading failed")
            raise

    async def _seek_while_stopped(self) -> None:
        """Seek as Faust does if the flow was stopped during a fetch."""
        try:
            await self.perform_seek()
        except Exception as error:  # noqa: BLE001  a later seek, or the watchdog, has the last word
            logger.warning("a seek failed while the flow was stopped: %r", error)

    async def _queue_all(self, records: Records, active: Collection[TP] | None, generation: int) -> None:
        """Queue the messages of a fetch, until the flow stops or the partitions move."""
        tracked: set[TP] = set()
        for number, (tp, record) in enumerate(self.scheduler.iterate(records), 1):
            if not self.flow_active or self.app.consumer_generation_id != generation:
                return
            if active is None or tp in active or tp in self._buffered_partitions:
                if tp not in tracked:
                    tracked.add(tp)
                    self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
                await self._queue(tp, record)
            if number % QUEUED_AT_ONCE == 0:
                await asyncio.sleep(0)

    async def _queue(self, tp: TP, record: Any) -> None:
        """Queue a message, unless it is before the position; wait while a queue is full.

        Faust would wait in a task of its own, which is not cancelled with this one: its message would come
        after a seek, before the messages that are read again.
        """
        offset, read = record.offset, self._read_offset[tp]
        if read is not None and offset < read:
            return
        if read and offset - read > 1 and self.app.topics.acks_enabled_for(tp.topic):
            await self._add_gap(tp, read + 1, offset)
        channels = cast("Any", self.app.topics)._tp_index[tp]  # noqa: SLF001  Faust shows it in no other way
        while any(channel.queue.full() for channel in channels):  # noqa: ASYNC110  a queue has no such event
            await asyncio.sleep(FULL_SECONDS)
        await self.callback(self._to_message(tp, record))
        self._read_offset[tp] = offset

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """Acknowledge the messages at once: one by one, each would take Faust's lock four times.

        Acknowledged twice, or before the committed offset, a message changes nothing.
        """
        by_partition: dict[TP, list[int]] = defaultdict(list)
        with ack_lock:
            for message in messages:
                if not message.acked and not message.decref():
                    message.acked = True
                    by_partition[message.tp].append(message.offset)
            for tp, offsets in by_partition.items():
                if self.app.topics.acks_enabled_for(tp.topic):
                    self._acknowledge(tp, offsets)
            self._unacked_messages -= set(messages)
            notify(self._waiting_for_ack)

    def _acknowledge(self, tp: TP, offsets: Iterable[int]) -> None:
        """Note offsets as handled, except for those before the committed offset or noted already."""
        committed, index = self._committed_offset[tp] or 0, self._acked_index[tp]
        new = [offset for offset in dict.fromkeys(offsets) if offset >= committed and offset not in index]
        index.update(new)
        self._acked[tp] += new

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Allow the partitions to be read when Faust resumes the flow, its next step after a seek.

        After the recovery of a table the flow runs already. Messages that came between the seek and Faust's
        last step would be lost: the step empties the queues of the agents.
        """
        self.stop_flow()
        super().resume_partitions(tps)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek to the committed offsets, and to the start of partitions without one.

        aiokafka does not move a partition without a committed offset. A fetch that was under way at the
        assignment has passed messages that Faust dropped: they would not be read before the next assignment.
        """
        committed = await super().seek_to_committed()
        never = [tp for tp, offset in committed.items() if not offset and not self._is_changelog_tp(tp)]
        if never:
            await self._thread.seek_to_beginning(*never)
        return committed

    def _new_offset(self, tp: TP) -> int | None:
        """Return the offset up to which all is acknowledged or not in the log; None without progress.

        Faust writes a gap down offset by offset: a gap as large as retention leaves would exhaust the memory.
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
        """Do nothing: Faust's detector crashes the worker at a partition during a seek.

        The watchdog checks the progress of partitions.
        """

    def committed(self, partition: TP) -> int | None:
        """Return the committed offset as of the last seek or commit."""
        return self._committed_offset[partition]

    async def put_at(self, offsets: Mapping[TP, int]) -> None:
        """Set the position and the committed offset of the partitions to these values.

        Faust ignores acknowledgements below its cached committed offset, and counts a gap as handled.
        """
        await self.seek_wait(offsets)
        for partition, offset in offsets.items():
            self._committed_offset[partition] = offset or None
            for known in (self._acked, self._acked_index, self._gap):
                known.pop(partition, None)
        await self._commit(offsets)  # the broker is to know it, too, even if no message comes for long


class SeekingTransport(Transport):
    """Faust's transport with the seeking consumer."""

    Consumer = SeekingConsumer


@asynccontextmanager
async def nothing_read(app: faust.App) -> AsyncIterator[None]:
    """Stop reading and drop messages that were read ahead; at the end read on, from wherever a seek ended.

    An assignment that starts meanwhile reads on by itself. Raises TimeoutError if reading does not stop.
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
