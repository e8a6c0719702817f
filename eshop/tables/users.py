"""The table of users, fed in batches from the event topics, one entry per user.

The entry goes to the changelog partition of the event, which is the user's: topics and changelog have the
same keys and numbers of partitions. After a crash the entry may be ahead of the committed offsets: its feed
numbers identify redeliveries. See docs/adr/0006-faust-as-it-is.md.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, NoReturn

import faust
from faust.types import TP, EventT, FutureMessage

from eshop.contracts.topics import DAY_MS, PARTITIONS
from eshop.tables import entry as entries
from eshop.tables.batch import Batch
from eshop.tables.changelog import NewestTable
from eshop.tables.entry import UserEntry
from eshop.tables.totals import Totals

#: A change of the format that does not fit stored entries needs a new name: the table is then rebuilt.
TABLE = "users-v1"

#: Late records of a stopped worker must not outlive the newer records before them.
CHANGELOG_CONFIG = {"cleanup.policy": "compact", "min.compaction.lag.ms": str(DAY_MS)}

#: RocksDB's memory per partition. Faust's defaults allow 2 GB of cache and 200 MB of buffers for each.
_ROCKSDB = {
    "driver": "rocksdict",
    "max_open_files": 128,
    "write_buffer_size": 4 * 1024 * 1024,
    "max_write_buffer_number": 2,
    "block_cache_size": 8 * 1024 * 1024,
}

#: A turn of reading on in the changelog; the next turn reads the rest.
CATCH_UP_SECONDS_MAX = 20.0

logger = logging.getLogger(__name__)


class NotSettled(Exception):
    """A rebalance or a recovery is under way: this worker has no answer for its part now."""


class Users:
    """This worker's part of the table, and the sums over it."""

    def __init__(self, app: faust.App) -> None:
        self._app = app
        self._totals: Totals | None = None
        self.table = NewestTable(
            app,
            name=TABLE,
            beacon=app.tables.beacon,
            key_type=bytes,
            value_type=bytes,
            partitions=PARTITIONS,
            options=dict(_ROCKSDB),
            help="orders and wallet of each user",
            extra_topic_configs=CHANGELOG_CONFIG,
        )
        app.tables.add(self.table)

    def take(self, events: Sequence[EventT[Any]]) -> list[FutureMessage]:
        """Fold events in their order; return the records that were sent to the changelog, one for each user.

        An event that can't be decoded is counted and passed over. Raises CannotFold with nothing changed. A
        repeated event changes nothing, but its user's entry is written again: after a SIGKILL the local store
        may be ahead of the changelog, which would never get the entry otherwise.
        """
        batch = Batch(self._load_from, now=int(time.time()) // 60)
        for event in events:
            batch.fold(event)
        sent = [
            self.table.write(*place, entries.to_bytes(user.entry))
            for place, user in batch.users.items()
            if user.is_written
        ]
        if self._totals is not None:
            for user in batch.users.values():
                if user.is_written and user.entry != user.old:
                    self._totals.replace(user.old, user.entry)
        batch.count()
        return sent

    def find(self, user_id: str) -> UserEntry | None:
        """Return a user's entry if this worker holds it; raise NotSettled."""
        self._settled()
        return self._load(user_id.encode())

    def totals(self) -> Totals:
        """Return the sums over the partitions of ``partitions()``; raise NotSettled."""
        return self._settled()

    def partitions(self) -> list[int]:
        """Return the partitions of this worker."""
        topic = self.table.changelog_topic_name
        actives = self._app.assignor.assigned_actives()
        return sorted(tp.partition for tp in actives if tp.topic == topic)

    async def check(self) -> None:
        """Raise NotSettled unless the table is recovered."""
        self._settled()

    async def catch_up(
        self, read_from: Callable[[Mapping[TP, int]], AsyncGenerator[list[Any], None]]
    ) -> None:
        """Read the changelog between this worker's records, so that the next start need not.

        ``read_from`` yields a log's records from the given offsets on. Ends if no record is left, if
        partitions change hands, or after CATCH_UP_SECONDS_MAX. Raises the errors of ``read_from``.
        """
        if not (unread := self._unread()):
            return
        try:
            async with asyncio.timeout(CATCH_UP_SECONDS_MAX), aclosing(read_from(unread)) as batches:
                async for records in batches:
                    if self._is_settled() and self.table.apply_records(records):
                        self.derive()
                    if not self._unread():
                        break
        except TimeoutError:
            return
        if self._is_settled():
            self._repair()

    def recovered(self) -> None:
        """Sum up the recovered entries, and have the changelog end with them."""
        self.derive()
        self._repair()

    def derive(self) -> None:
        """Add up all entries of the assigned partitions. Called before any event of a new assignment."""
        self._totals = None
        self._totals = Totals(entries.from_bytes(value) for value in self.table.values())

    def forget(self) -> None:
        """Answer no more until the next assignment is recovered."""
        self._totals = None
        self.table.forget_sent()

    def _repair(self) -> None:
        if repaired := self.table.repair_changelog(self.partitions()):
            logger.warning("%d entries were newer here than in the changelog: written again", repaired)

    def _unread(self) -> Mapping[TP, int]:
        return self.table.unread(self.partitions()) if self._is_settled() else {}

    def _is_settled(self) -> bool:
        return self._current() is not None

    def _settled(self) -> Totals:
        if (totals := self._current()) is None:
            raise NotSettled("partitions are being assigned")
        return totals

    def _current(self) -> Totals | None:
        return None if self._app.rebalancing else self._totals

    def _load_from(self, partition: int, key: bytes) -> UserEntry | None:
        value = self.table.read(partition, key)
        return None if value is None else entries.from_bytes(value)

    def _load(self, key: bytes) -> UserEntry | None:
        value = self.table.get(key)
        return None if value is None else entries.from_bytes(value)


def register(app: faust.App, give_up: Callable[[str], NoReturn]) -> Users:
    """Add the table. ``give_up`` ends the process if the recovered table can't be summed up."""
    users = Users(app)

    async def recovered() -> None:
        try:
            users.recovered()
        except Exception as error:  # noqa: BLE001  Faust drops what is raised here
            give_up(f"the totals can't be derived: {error!r}")

    users.table.on_recover(recovered)

    @app.on_partitions_revoked.connect(weak=False)
    async def revoked(_app: object, *_args: object, **_kwargs: object) -> None:
        users.forget()

    return users
