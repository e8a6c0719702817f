"""A table whose changelog may hold late writes of a worker that no longer owned the partition.

A worker that was stopped (SIGSTOP, a frozen machine) and goes on writes what it had read, before it learns
that another took over. Its old entries lie behind newer ones, and Faust (0.15.3) goes wrong twice: it
rebuilds the old ones, and it takes the offset of its own late record for "read up to here", though it never
read the other's records before it. In a trial, over 2,000 of 9,000 feed numbers seemed lost after one SIGSTOP
of 13 s.
"""

from collections.abc import Iterable
from typing import Any, cast

import faust
from faust.types import EventT, FutureMessage

from eshop.tables.entry import from_bytes, to_bytes
from eshop.tables.fold import newest


class NewestTable(faust.Table[bytes, bytes]):
    """A table of UserEntry bytes by user, in which recovery never goes back behind a feed number."""

    def __init__(self, app: faust.App, **options: Any) -> None:
        super().__init__(app, **options)
        #: Users whose last changelog record is not their newest entry: key and partition.
        self._outdated: dict[bytes, int] = {}

    def apply_changelog_batch(self, batch: Iterable[EventT[Any]]) -> None:
        """Store what changelog records and the local store know together."""
        events = list(batch)
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

    def _on_changelog_sent(self, fut: FutureMessage) -> None:
        """Move the offset that recovery starts from, but never over a record of somebody else."""
        sent = fut.result()
        read_up_to = self.data.persisted_offset(sent.topic_partition)
        if sent.offset == (-1 if read_up_to is None else read_up_to) + 1:
            self.data.set_persisted_offset(sent.topic_partition, sent.offset)

    def repair_changelog(self) -> int:
        """Write again the entries that are newer here than in the changelog; return how many."""
        for key, partition in self._outdated.items():
            self.send_changelog(partition, key, self.data[key])
        repaired = len(self._outdated)
        self._outdated.clear()
        return repaired
