"""Topics against outboxes and inboxes: each partition is read once, beside the rows that belong to it."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from aiokafka import TopicPartition

from eshop.audit.broker import Broker, Offsets, Record
from eshop.audit.databases import Snapshot
from eshop.audit.findings import Findings

#: How long topics keep messages: what is older is out of judgement.
RETENTION_DAYS = 7

#: So many messages of which no outbox knows are remembered, to be looked at once more.
FOREIGN_MAX = 10_000

#: In the order of the topic. Contents travel as a digest, the same as `_digest` makes of a record.
_SENT = """
SELECT sent_partition AS partition, sent_offset AS at, message_id, outbox_id,
    md5(convert_to(concat_ws(E'\\n', user_id, type, body), 'UTF8')) AS digest,
    sent_at < now() - make_interval(days => %(days)s) AS is_old
FROM outbox WHERE topic = %(topic)s AND sent_at IS NOT NULL
ORDER BY sent_partition, sent_offset
"""
_BY_ID = """
SELECT message_id, outbox_id, sent_offset AS at,
    md5(convert_to(concat_ws(E'\\n', user_id, type, body), 'UTF8')) AS digest
FROM outbox WHERE topic = %(topic)s AND message_id = ANY (%(ids)s::uuid[])
"""
_CLAIMED = """
SELECT partition, "offset" AS at, message_id FROM inbox
WHERE consumer = %(consumer)s AND topic = %(topic)s ORDER BY partition, "offset"
"""
_CLAIMED_BY_ID = (
    "SELECT message_id FROM inbox WHERE consumer = %(consumer)s AND message_id = ANY (%(ids)s::uuid[])"
)
_WATERMARKS = (
    "SELECT partition, next_offset FROM watermarks WHERE consumer = %(consumer)s AND topic = %(topic)s"
)
_OLDEST = """
SELECT (extract(epoch FROM now() - make_interval(days => %(days)s)) * 1000)::bigint AS milliseconds
"""
#: By its place, or by its id: one that came again under the same id is dropped by the inbox.
_SET_ASIDE = """
SELECT "offset" AS at, message_id FROM dead_letters
WHERE topic = %(topic)s
    AND (partition = %(partition)s AND "offset" = ANY (%(offsets)s) OR message_id = ANY (%(ids)s::uuid[]))
"""
_SET_ASIDE_BY_ID = """
SELECT message_id FROM dead_letters WHERE status <> 'replayed' AND message_id = ANY (%(ids)s::uuid[])
"""
#: What a message means once it has had its effect: the status of its order (or its payment) is one of these.
_RESULTS = {
    "eshop.orders.OrderCreated": ("CAPTURED", "REFUSED", "REFUNDED"),
    "eshop.orders.OrderCancellationRequested": ("REFUSED", "REFUNDED"),
    "eshop.payments.PaymentCaptured": ("FINISHED", "CANCELLED"),
    "eshop.payments.PaymentRefused": ("CANCELLED",),
    "eshop.payments.PaymentRefunded": ("CANCELLED",),
}
_STATUS_OF = {
    "orders": "SELECT order_id, status FROM orders WHERE order_id = ANY (%(ids)s::uuid[])",
    "payments": "SELECT order_id, status FROM payments WHERE order_id = ANY (%(ids)s::uuid[])",
}


def _digest(record: Record) -> str:
    """Return the fingerprint of a record's content, which Postgres makes of an outbox row too."""
    content = b"\n".join((record.key, record.type.encode(), record.value))
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class Log:
    """A topic with who writes it and who reads it, and how far it is judged.

    ``known_until``: below these offsets every message was committed to the outbox before its snapshot.
    ``ends``: below these lies everything that the outbox's snapshot shows as sent.
    """

    topic: str
    catalogue_name: str
    writer: Snapshot
    reader: Snapshot | None
    starts: Offsets
    known_until: Offsets
    ends: Offsets


class _Rows:
    """Rows ordered by (partition, offset), taken range by range."""

    def __init__(self, rows: Iterator[Any]) -> None:
        self._rows = rows
        self._next = next(rows, None)

    def until(self, partition: int, offset: int) -> list[Any]:
        """Take the rows up to, and without, a place."""
        taken = []
        while self._next is not None and (self._next.partition, self._next.at) < (partition, offset):
            taken.append(self._next)
            self._next = next(self._rows, None)
        return taken


@dataclass(frozen=True, slots=True)
class _Foreign:
    """A message of which no outbox knows, without its content: that may be large."""

    partition: TopicPartition
    offset: int
    message_id: str | None
    type: str
    about: dict[str, object]


@dataclass(slots=True)
class FirstOccurrences:
    """The order of first occurrences in a partition: per user, the last number of the outbox.

    ``early`` holds what was seen before the place where the outbox has it marked, because a relay crashed
    between publishing and marking. In the end it is empty again, but for what is still unsent.
    """

    last: dict[bytes, int] = field(default_factory=dict)
    early: dict[int, int] = field(default_factory=dict)

    def overtaker(self, record: Record, row: Any) -> int | None:
        """Take a message in; return the later one that overtook it, if this is its first occurrence."""
        number: int = row.outbox_id
        is_first = number not in self.early and (row.at is None or record.offset <= row.at)
        if row.at is None or record.offset < row.at:
            self.early[number] = record.offset
        else:
            self.early.pop(number, None)
        if not is_first:
            return None
        last = self.last.get(record.key, 0)
        self.last[record.key] = max(last, number)
        return last if last > number else None


class TopicCheck:
    """Judges 6, 7 and the first half of 9 for one topic."""

    def __init__(self, log: Log, findings: Findings, progress: Callable[[int], None]) -> None:
        self._log = log
        self._findings = findings
        self._progress = progress
        self._watermarks: dict[int, int] = {}
        self._oldest_ms = 0
        #: Messages of which no outbox knows: they may be about to be set aside.
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
            await asyncio.to_thread(self._finish, partition)

    def _open(self) -> None:
        log = self._log
        self._sent = _Rows(log.writer.stream(_SENT, topic=log.catalogue_name, days=RETENTION_DAYS))
        self._oldest_ms = log.writer.rows(_OLDEST, days=RETENTION_DAYS)[0].milliseconds
        self._claimed = _Rows(iter(()))
        if log.reader is not None:
            reads = {"consumer": log.reader.service, "topic": log.topic}
            self._claimed = _Rows(log.reader.stream(_CLAIMED, **reads))
            self._watermarks = {
                row.partition: row.next_offset for row in log.reader.rows(_WATERMARKS, **reads)
            }

    def _judge(self, partition: TopicPartition, page: Sequence[Record]) -> None:
        number, end = partition.partition, page[-1].offset + 1
        self._findings.checked["messages"] += len(page)
        sent = {row.at: row for row in self._sent.until(number, end)}
        claimed = {row.at: row.message_id for row in self._claimed.until(number, end)}
        rows = self._rows_of(page, sent)
        for record in page:
            row = rows.get(record.offset)
            if row is None:
                self._note_foreign(partition, record)
                continue
            self._judge_content(partition, record, row)
            overtaker = self._order.overtaker(record, row)
            if overtaker is not None:
                self._findings.add(
                    "9",
                    self._about(partition, record),
                    outbox=f"number {row.outbox_id}",
                    topic=f"it comes after number {overtaker}",
                )
        self._judge_missing(partition, sent.values())
        if self._log.reader is not None:
            self._judge_claims(self._log.reader, partition, page, claimed)

    def _finish(self, partition: TopicPartition) -> None:
        """Judge what the outbox and the inbox say lies past the log's end."""
        past = self._sent.until(partition.partition + 1, 0)
        self._judge_missing(partition, past)
        self._findings.unjudged["inbox_rows"] += len(self._claimed.until(partition.partition + 1, 0))

    def _rows_of(self, page: Sequence[Record], sent: dict[int, Any]) -> dict[int, Any]:
        """Return the outbox's row of each record, by offset; take those in place from ``sent``."""
        found = {}
        elsewhere: dict[str, list[int]] = {}
        for record in page:
            row = sent.get(record.offset)
            if row is not None and row.message_id == record.message_id:
                found[record.offset] = sent.pop(record.offset)
            elif record.message_id is not None:
                elsewhere.setdefault(record.message_id, []).append(record.offset)
        if elsewhere:
            known = self._log.writer.rows(_BY_ID, topic=self._log.catalogue_name, ids=list(elsewhere))
            found |= {offset: row for row in known for offset in elsewhere[row.message_id]}
            repeated = [row.message_id for row in known if row.at is not None]
            self._findings.checked["repetitions"] += sum(len(elsewhere[one]) for one in repeated)
        return found

    def _judge_content(self, partition: TopicPartition, record: Record, row: Any) -> None:
        if row.digest != _digest(record):
            self._findings.add(
                "6",
                self._about(partition, record),
                topic=f"{record.type} {record.value[:200].decode(errors='replace')}",
                outbox=f"number {row.outbox_id} has another content",
            )

    def _judge_missing(self, partition: TopicPartition, rows: Any) -> None:
        start = self._log.starts[partition]
        for row in rows:
            if row.at < start and row.is_old:
                self._findings.unjudged["outbox_rows"] += 1
                continue
            self._findings.add(
                "6",
                {"message": row.message_id},
                outbox=f"number {row.outbox_id}, sent to {_place(partition, row.at)}",
                topic=f"not there; the log holds {start} to {self._log.ends[partition] - 1}",
            )

    def _note_foreign(self, partition: TopicPartition, record: Record) -> None:
        """Remember a message that is in no outbox, unless it came after that was read, or is too old."""
        if record.offset >= self._log.known_until[partition]:
            self._findings.unjudged["messages_too_new"] += 1
        elif record.timestamp_ms < self._oldest_ms:
            self._findings.unjudged["messages_too_old"] += 1
        elif len(self.foreign) < FOREIGN_MAX:
            about = self._about(partition, record)
            self.foreign.append(_Foreign(partition, record.offset, record.message_id, record.type, about))
        else:
            self._findings.add("6", self._about(partition, record), outbox=None, topic=record.type)

    def _judge_claims(
        self, reader: Snapshot, partition: TopicPartition, page: Sequence[Record], claimed: dict[int, str]
    ) -> None:
        """Judge 7: what is below the watermark is claimed, and what is claimed has its result."""
        handled = [record for record in page if record.offset < self._watermarks.get(partition.partition, 0)]
        in_place = {r.message_id for r in page if r.message_id and claimed.get(r.offset) == r.message_id}
        self._findings.checked["inbox_rows"] += len(in_place)
        self._findings.unjudged["inbox_rows"] += len(claimed) - len(in_place)
        elsewhere = [r.message_id for r in handled if r.message_id and r.message_id not in in_place]
        known = set()
        if elsewhere:
            rows = reader.rows(_CLAIMED_BY_ID, consumer=reader.service, ids=elsewhere)
            known = {row.message_id for row in rows}
        lost = [r for r in handled if r.message_id not in in_place and r.message_id not in known]
        set_aside = self._set_aside(reader, partition, lost)
        for record in lost:
            if record.offset not in set_aside:
                self._findings.add(
                    "7",
                    self._about(partition, record),
                    watermark=self._watermarks[partition.partition],
                    inbox=None,
                )
        self._judge_results(reader, partition, [r for r in page if r.message_id in in_place])

    def _judge_results(self, reader: Snapshot, partition: TopicPartition, claimed: Sequence[Record]) -> None:
        asked = {record.offset: _order_id(record) for record in claimed if record.type in _RESULTS}
        ids = [order_id for order_id in asked.values() if order_id is not None]
        rows = reader.rows(_STATUS_OF[reader.service], ids=ids) if ids else []
        status = {row.order_id: row.status for row in rows}
        wrong = [
            r for r in claimed if r.offset in asked and status.get(asked[r.offset]) not in _RESULTS[r.type]
        ]
        if not wrong:
            return
        parked = set()
        if reader.has_dead_letters:
            found = reader.rows(_SET_ASIDE_BY_ID, ids=[record.message_id for record in wrong])
            parked = {row.message_id for row in found}
        for record in wrong:
            if record.message_id not in parked:
                self._findings.add(
                    "7",
                    self._about(partition, record),
                    inbox=f"{record.type} was handled",
                    **{reader.service: status.get(asked[record.offset])},
                )

    def _set_aside(
        self, reader: Snapshot, partition: TopicPartition, records: Sequence[Record] | Sequence[_Foreign]
    ) -> set[int]:
        """Return the offsets of those that are dead letters."""
        if not records or not reader.has_dead_letters:
            return set()
        rows = reader.rows(
            _SET_ASIDE,
            topic=partition.topic,
            partition=partition.partition,
            offsets=[record.offset for record in records],
            ids=[record.message_id for record in records if record.message_id is not None],
        )
        offsets, ids = {row.at for row in rows}, {row.message_id for row in rows}
        return {record.offset for record in records if record.offset in offsets or record.message_id in ids}

    def judge_foreign(self, reader: Snapshot | None) -> None:
        """Judge what is in no outbox, by what the reader has set aside by now."""
        for partition in sorted({one.partition for one in self.foreign}):
            found = [one for one in self.foreign if one.partition == partition]
            set_aside = set() if reader is None else self._set_aside(reader, partition, found)
            for one in found:
                if one.offset in set_aside:
                    self._findings.checked["dead_letters"] += 1
                else:
                    self._findings.add("6", one.about, outbox=None, topic=one.type)

    def _about(self, partition: TopicPartition, record: Record) -> dict[str, object]:
        about: dict[str, object] = {"message": record.message_id or "without an id"}
        order_id = _order_id(record)
        if order_id is not None:
            about["order"] = order_id
        about["user"] = record.key.decode(errors="replace")
        about["place"] = _place(partition, record.offset)
        return about


def _place(partition: TopicPartition, offset: int) -> str:
    return f"{partition.topic}/{partition.partition}@{offset}"


def _order_id(record: Record) -> str | None:
    """Return the order that a message is about, if it is about one."""
    try:
        return str(UUID(json.loads(record.value)["order_id"]))
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
