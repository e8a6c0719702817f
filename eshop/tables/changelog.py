"""A table whose changelog may hold late writes of a worker that no longer owns the partition.

A worker that is stopped (SIGSTOP, a frozen machine) and continues writes its pending entries before it learns
of the new owner. The old entries follow newer entries, and Faust (0.15.3) goes wrong twice: it restores the
old entries, and it takes the offset of its own late record for "read up to here", without having read the
other owner's records before it. In a trial, over 2,000 of 9,000 feed numbers seemed lost after one SIGSTOP of
13 s.

So the offset is moved over this worker's records only. Records between them (late ones, and repeated ones
after an outage of the broker) are read while the worker runs: otherwise the next start would read everything
after them.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import faust
from faust.types import TP, EventT, FutureMessage

from eshop.contracts.unreadable import Unreadable
from eshop.tables.entry import from_bytes, to_bytes
from eshop.tables.fold import newest


class NewestTable(faust.Table[bytes, bytes]):
    """A table of UserEntry bytes by user, whose recovery never goes back to an earlier feed number."""

    def __init__(self, app: faust.App, **options: Any) -> None:
        super().__init__(app, **options)
        #: Users whose last changelog record is not their newest entry: key and partition.
        self._outdated: dict[bytes, int] = {}
        #: The last record of our own in each partition, as far as we know.
        self._sent: dict[TP, int] = {}

    def read(self, partition: int, key: bytes) -> bytes | None:
        """Return a user's entry in the partition."""
        found = self._partition(partition).get(key)
        return None if found is None else bytes(found)

    def write(self, partition: int, key: bytes, value: bytes) -> FutureMessage:
        """Store a user's entry and send it to the changelog; the future ends when the broker has the record.

        Faust's `table[key] = value` takes the partition from the event that the stream gave last, which is
        the first event of a batch.
        """
        sent = self.send_changelog(partition, key, value)
        self._partition(partition).put(key, value)
        cast("Any", self.data)._key_index[key] = partition  # noqa: SLF001  as Faust does
        return sent

    def _partition(self, partition: int) -> Any:
        return cast("Any", self.data)._db_for_partition(partition)  # noqa: SLF001  Faust has no public way

    def apply_changelog_batch(self, batch: Iterable[EventT[Any]]) -> None:
        """Store the merge of changelog records and the local store, except for unparsable records."""
        events = [event for event in batch if _is_readable(event.message)]
        known: dict[bytes, bytes] = {}
        for event in events:
            message = event.message
            key, recorded = cast("bytes", message.key), cast("bytes", message.value)
            stored = known.get(key) or cast("bytes | None", self.data.get(key))
            entry = from_bytes(recorded)
            merged = entry if stored is None else newest(entry, from_bytes(stored))
            if merged == entry:
                self._outdated.pop(key, None)
            else:
                self._outdated[key] = message.partition
                message.value = to_bytes(merged)
            known[key] = cast("bytes", message.value)
        super().apply_changelog_batch(events)

    def _verify_source_topic_partitions(self, source_topic: str) -> None:
        """Let a source topic have more partitions than the changelog: no message is placed in the others."""

    def _on_changelog_sent(self, fut: FutureMessage) -> None:
        """Move the offset from which recovery starts, but never over an unread record."""
        sent = fut.result()
        self._sent[sent.topic_partition] = sent.offset
        if sent.offset == self._unread_from(sent.topic_partition):
            self.data.set_persisted_offset(sent.topic_partition, sent.offset)

    def forget_sent(self) -> None:
        """Take nothing for our own any more: partitions are changing hands, and are recovered."""
        self._sent.clear()

    def unread(self, partitions: Collection[int]) -> Mapping[TP, int]:
        """Return where to read on, by partition, among partitions with later records of this worker."""
        starts = {tp: self._unread_from(tp) for tp in self._sent if tp.partition in partitions}
        return {tp: start for tp, start in starts.items() if start <= self._sent[tp]}

    def apply_records(self, records: Sequence[Any]) -> bool:
        """Store records of the changelog as recovery does; return whether any was new."""
        readable = [record for record in records if _is_readable(record)]
        before = {record.key: self.data.get(record.key) for record in readable}
        self.apply_changelog_batch(
            cast("EventT[Any]", SimpleNamespace(message=_message(record))) for record in readable
        )
        return any(self.data.get(key) != value for key, value in before.items())

    def _unread_from(self, partition: TP) -> int:
        read_up_to = self.data.persisted_offset(partition)
        return 0 if read_up_to is None else read_up_to + 1

    def repair_changelog(self, partitions: Collection[int]) -> int:
        """Write entries of these partitions that are newer than the changelog; return their number."""
        outdated = {key: where for key, where in self._outdated.items() if where in partitions}
        for key, partition in outdated.items():
            self.send_changelog(partition, key, self.data[key])
        self._outdated.clear()
        return len(outdated)


def _is_readable(message: Any) -> bool:
    return not isinstance(message.value, Unreadable)


def _message(record: Any) -> SimpleNamespace:
    return SimpleNamespace(
        tp=TP(record.topic, record.partition),
        partition=record.partition,
        offset=record.offset,
        key=record.key,
        value=record.value,
    )
