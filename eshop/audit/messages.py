"""Topics against outboxes: each partition is read once, beside the rows of its outbox."""

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from aiokafka import TopicPartition
from aiokafka.partitioner import DefaultPartitioner

from eshop.audit.broker import Broker, Offsets, Record, place
from eshop.audit.claims import Claims, set_aside
from eshop.audit.databases import Database, Snapshot
from eshop.audit.findings import Findings
from eshop.audit.outboxes import RETENTION_DAYS, Sent
from eshop.audit.spool import Spool
from eshop.contracts.topics import PARTITIONS

#: The number of messages without an outbox row that are remembered for a second check.
FOREIGN_MAX = 10_000
SHOWN_BYTES_MAX = 200

_BY_ID = """
SELECT message_id, outbox_id, sent_offset AS at,
    md5(convert_to(concat_ws(E'\\n', user_id, type, body), 'UTF8')) AS digest
FROM outbox WHERE topic = %(topic)s AND message_id = ANY (%(ids)s::uuid[])
"""
USERS_REMEMBERED_MAX = 50_000
_ALL_PARTITIONS = list(range(PARTITIONS))
_OLDEST = """
SELECT (extract(epoch FROM now() - make_interval(days => %(days)s)) * 1000)::bigint AS milliseconds
"""


def _digest(record: Record) -> str:
    """Return the fingerprint of a record's content; Postgres makes the same of an outbox row."""
    content = b"\n".join((record.key, record.type.encode(), record.value))
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@lru_cache(USERS_REMEMBERED_MAX)
def _partition_of(key: bytes) -> int:
    return int(DefaultPartitioner()(key, _ALL_PARTITIONS, _ALL_PARTITIONS))


@dataclass(frozen=True, slots=True)
class Log:
    """A topic with its writer, its reader, and the ends up to which it is judged.

    The ``ends`` were read after the outbox was spooled: every message that the outbox shows as sent is below
    them.
    """

    topic: str
    catalogue_name: str
    writer: Database
    reader: Database | None
    starts: Offsets
    ends: Offsets


@dataclass(frozen=True, slots=True)
class _Foreign:
    """A message without an outbox row, without its content, which may be large."""

    partition: TopicPartition
    offset: int
    message_id: str | None
    type: str
    about: dict[str, object]


@dataclass(slots=True)
class FirstOccurrences:
    """The order of first occurrences in a partition: per user, the last number of the outbox.

    ``early`` holds messages that were seen before their marked place, because a relay crashed between
    publishing and marking. At the end only unsent messages are left in it.
    """

    last: dict[bytes, int] = field(default_factory=dict)
    early: dict[int, int] = field(default_factory=dict)

    def overtaker(self, record: Record, row: Any) -> int | None:
        """Add a message; return the later message that overtook it, if this is its first occurrence."""
        number: int = row["outbox_id"]
        is_first = number not in self.early and (row["at"] is None or record.offset <= row["at"])
        if row["at"] is None or record.offset < row["at"]:
            self.early[number] = record.offset
        else:
            self.early.pop(number, None)
        if not is_first:
            return None
        last = self.last.get(record.key, 0)
        self.last[record.key] = max(last, number)
        return last if last > number else None


class TopicCheck:
    """Judges 6, 14 and the first half of 9 for a topic, and has 7 judged beside it."""

    def __init__(self, log: Log, spool: Spool, findings: Findings, progress: Callable[[int], None]) -> None:
        self._log = log
        self._spool = spool
        self._findings = findings
        self._progress = progress
        #: Messages without an outbox row: they may be about to be parked.
        self.foreign: list[_Foreign] = []

    async def run(self, broker: Broker) -> None:
        """Read the whole topic once."""
        await asyncio.to_thread(self._open)
        for partition in sorted(self._log.ends):
            end = self._log.ends[partition]
            self._order = FirstOccurrences()
            async for page in broker.records(partition, self._log.starts[partition], end):
                await asyncio.to_thread(self._judge, partition, page)
                self._progress(len(page))
            self._judge_missing(partition, self._sent.until(partition.partition + 1, 0))
        if self._claims is not None:
            self._claims.finish()

    def _open(self) -> None:
        log = self._log
        self._sent = Sent(self._spool, log.catalogue_name)
        with log.writer.snapshot() as writer:
            self._oldest_ms = writer.rows(_OLDEST, days=RETENTION_DAYS)[0].milliseconds
        self._claims = (
            None
            if log.reader is None
            else Claims(log.reader, log.topic, self._oldest_ms, self._spool, self._findings)
        )

    def _judge(self, partition: TopicPartition, page: Sequence[Record]) -> None:
        number = partition.partition
        self._findings.checked["messages"] += len(page)
        self._judge_missing(partition, self._sent.until(number, page[0].offset))
        sent: dict[tuple[int, str | None], Any] = {
            (row["at"], row["message_id"]): row for row in self._sent.until(number, page[-1].offset + 1)
        }
        rows = self._rows_of(page, sent)
        self._judge_missing(partition, sent.values())
        for record in page:
            row = rows.get(record.offset)
            if row is None:
                self._note_foreign(record)
            else:
                self._judge_record(record, row)
        if self._claims is not None:
            self._claims.judge(partition, page)

    def _rows_of(self, page: Sequence[Record], sent: dict[tuple[int, str | None], Any]) -> dict[int, Any]:
        """Return the outbox row of each record, by offset; take rows in place from ``sent``.

        Rows that were sent after the outbox was spooled are read now: each was in the outbox before it was on
        a topic.
        """
        found = {}
        elsewhere: dict[str, list[int]] = {}
        for record in page:
            row = sent.pop((record.offset, record.message_id), None)
            if row is not None:
                found[record.offset] = row
            elif record.message_id is not None:
                elsewhere.setdefault(record.message_id, []).append(record.offset)
        if elsewhere:
            with self._log.writer.snapshot() as writer:
                rows = writer.rows(_BY_ID, topic=self._log.catalogue_name, ids=list(elsewhere))
            known = [row._asdict() for row in rows]
            found |= {offset: row for row in known for offset in elsewhere[row["message_id"]]}
            repetitions = [(row, offset) for row in known for offset in elsewhere[row["message_id"]]]
            self._findings.checked["repetitions"] += sum(
                row["at"] is not None and row["at"] != offset for row, offset in repetitions
            )
        return found

    def _judge_record(self, record: Record, row: Any) -> None:
        """Judge a message by its row of the outbox."""
        if row["digest"] != _digest(record):
            shown = record.value[:SHOWN_BYTES_MAX].decode(errors="replace")
            outbox = f"number {row['outbox_id']} has another content"
            self._findings.add("6", record.about(), topic=f"{record.type} {shown}", outbox=outbox)
        right = _partition_of(record.key)
        if record.partition.partition != right:
            self._findings.add(
                "14", record.about(), outbox=f"number {row['outbox_id']}", hash=f"partition {right}"
            )
        overtaker = self._order.overtaker(record, row)
        if overtaker is not None:
            topic = f"it comes after number {overtaker}"
            self._findings.add("9", record.about(), outbox=f"number {row['outbox_id']}", topic=topic)

    def _judge_missing(self, partition: TopicPartition, rows: Iterable[Any]) -> None:
        start = self._log.starts[partition]
        for row in rows:
            if row["at"] < start and row["is_old"]:
                self._findings.unjudged["outbox_rows"] += 1
                continue
            self._findings.add(
                "6",
                {"message": row["message_id"]},
                outbox=f"number {row['outbox_id']}, sent to {place(partition, row['at'])}",
                topic=f"not there; the log holds {start} to {self._log.ends[partition] - 1}",
            )

    def _note_foreign(self, record: Record) -> None:
        """Remember a message without an outbox row, unless it is too old."""
        if record.timestamp_ms < self._oldest_ms:
            self._findings.unjudged["messages_too_old"] += 1
        elif len(self.foreign) < FOREIGN_MAX:
            self.foreign.append(
                _Foreign(record.partition, record.offset, record.message_id, record.type, record.about())
            )
        else:
            self._findings.add("6", record.about(), outbox=None, topic=record.type)

    def judge_foreign(self, reader: Snapshot | None) -> None:
        """Judge messages without an outbox row, by the reader's dead letters."""
        for partition in sorted({one.partition for one in self.foreign}):
            found = [one for one in self.foreign if one.partition == partition]
            aside = set() if reader is None else set_aside(reader, partition, found)
            for one in found:
                if one.offset in aside:
                    self._findings.checked["dead_letters"] += 1
                else:
                    self._findings.add("6", one.about, outbox=None, topic=one.type)
