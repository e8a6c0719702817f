"""Does the consumer commit over gaps in the log, however large, and over nothing that is not acknowledged?"""

import asyncio
import tracemalloc
from collections import defaultdict

from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st
from intervaltree import IntervalTree  # type: ignore[import-untyped]

from eshop.process.consumer import SeekingConsumer

PARTITION = TP("topic", 0)
#: What a worker that was away for longer than the topic keeps may find gone.
LOST = 1_000_000_000
BYTES_MAX = 1_000_000


class Reader:
    """What a consumer knows of one partition: how far it is read, acknowledged and committed."""

    def __init__(self, committed: int | None) -> None:
        self.consumer = object.__new__(SeekingConsumer)
        self.consumer._acked = defaultdict(list)
        self.consumer._acked_index = defaultdict(set)
        self.consumer._gap = defaultdict(IntervalTree)
        self.consumer._committed_offset = defaultdict(lambda: committed)
        self.read_offset = committed

    async def read(self, offset: int) -> None:
        """Read the next message there is, as Faust does."""
        if self.read_offset and offset - self.read_offset > 1:
            await self.consumer._add_gap(PARTITION, self.read_offset + 1, offset)
        self.read_offset = offset

    def ack(self, offset: int) -> None:
        """Acknowledge a message."""
        self.consumer._acked_index[PARTITION].add(offset)
        self.consumer._acked[PARTITION].append(offset)

    def commit(self) -> int | None:
        """Return what is committed from now on."""
        offset = self.consumer._new_offset(PARTITION)
        if offset is not None and self.consumer._should_commit(PARTITION, offset):
            self.consumer._committed_offset[PARTITION] = offset
        return self.consumer._committed_offset[PARTITION]


async def test_gap_of_a_long_absence_is_committed_over_in_little_memory() -> None:
    for lost in (1_000_000, LOST):
        reader = Reader(committed=7)
        tracemalloc.start()
        try:
            await reader.read(lost)
            await reader.read(lost + 1)
            reader.ack(lost)
            assert reader.commit() == lost + 1
            await reader.read(2 * lost)
            reader.ack(lost + 1)
            reader.ack(2 * lost)
            assert reader.commit() == 2 * lost + 1
            assert tracemalloc.get_traced_memory()[1] < BYTES_MAX
        finally:
            tracemalloc.stop()
    assert not reader.consumer._acked[PARTITION]
    assert not reader.consumer._gap[PARTITION]
    assert not reader.consumer._acked_index[PARTITION]


@given(
    st.none() | st.integers(1, 5),
    st.lists(st.tuples(st.sampled_from([1, 1, 1, 2, 3, 9]), st.integers(0, 3), st.booleans()), max_size=30),
)
def test_up_to_the_last_acknowledged_message_all_is_committed_and_no_further(
    committed: int | None, steps: list[tuple[int, int, bool]]
) -> None:
    async def run() -> None:
        reader = Reader(committed)
        offset, waiting, done = committed or 1, [], committed
        for distance, acks, commits in steps:
            await reader.read(offset)
            waiting.append(offset)
            for acked in waiting[:acks]:  # in order, as our agents do
                reader.ack(acked)
                done = acked + 1
            del waiting[:acks]
            if commits:
                assert reader.commit() == done
            offset += distance

    asyncio.run(run())
