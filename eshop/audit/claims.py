"""A topic against the inbox of who reads it: what was read is claimed, and what is claimed has its result."""

from collections.abc import Sequence
from typing import Protocol

from aiokafka import TopicPartition

from eshop.audit.broker import Record
from eshop.audit.databases import ByPlace, Snapshot
from eshop.audit.findings import Findings

_CLAIMED = """
SELECT partition, "offset" AS at, message_id FROM inbox
WHERE consumer = %(consumer)s AND topic = %(topic)s ORDER BY partition, "offset"
"""
_CLAIMED_BY_ID = """
SELECT message_id FROM inbox WHERE consumer = %(consumer)s AND message_id = ANY (%(ids)s::uuid[])
"""
_WATERMARKS = """
SELECT partition, next_offset FROM watermarks WHERE consumer = %(consumer)s AND topic = %(topic)s
"""
#: By its place, or by its id: one that came again under the same id is dropped by the inbox.
_SET_ASIDE = """
SELECT "offset" AS at, message_id FROM dead_letters
WHERE topic = %(topic)s
    AND (partition = %(partition)s AND "offset" = ANY (%(offsets)s) OR message_id = ANY (%(ids)s::uuid[]))
"""
_HAS_NO_EFFECT = """
SELECT message_id FROM dead_letters WHERE status <> 'replayed' AND message_id = ANY (%(ids)s::uuid[])
"""
#: What a message means once it has had its effect: the status of its order (or its payment) is one of these.
#: None: the order may be nowhere once its money was given back; whether it may, invariant 4 says.
_RESULTS: dict[str, tuple[str | None, ...]] = {
    "eshop.orders.OrderCreated": ("CAPTURED", "REFUSED", "REFUNDED"),
    "eshop.orders.OrderCancellationRequested": ("REFUSED", "REFUNDED"),
    "eshop.payments.PaymentCaptured": ("FINISHED", "CANCELLED"),
    "eshop.payments.PaymentRefused": ("CANCELLED",),
    "eshop.payments.PaymentRefunded": ("CANCELLED", None),
}
_STATUS_OF = {
    "orders": "SELECT order_id, status FROM orders WHERE order_id = ANY (%(ids)s::uuid[])",
    "payments": "SELECT order_id, status FROM payments WHERE order_id = ANY (%(ids)s::uuid[])",
}


class Placed(Protocol):
    """Something that lies on a topic."""

    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def message_id(self) -> str | None: ...  # noqa: D102


class Claims:
    """Judges 7 for one topic, partition by partition and page by page, in the order of the log."""

    def __init__(self, reader: Snapshot, topic: str, oldest_ms: int, findings: Findings) -> None:
        """Begin. Of messages that are older the inbox may have forgotten."""
        reads = {"consumer": reader.service, "topic": topic}
        self._reader = reader
        self._findings = findings
        self._oldest_ms = oldest_ms
        self._claimed = ByPlace(reader.stream(_CLAIMED, **reads))
        self._watermarks = {row.partition: row.next_offset for row in reader.rows(_WATERMARKS, **reads)}

    def judge(self, partition: TopicPartition, page: Sequence[Record]) -> None:
        """Judge the next records of a partition."""
        number = partition.partition
        self._pass_over(number, page[0].offset)
        claimed = {row.at: row.message_id for row in self._claimed.until(number, page[-1].offset + 1)}
        in_place = {r.message_id for r in page if r.message_id and claimed.get(r.offset) == r.message_id}
        self._findings.checked["inbox_rows"] += len(in_place)
        self._findings.unjudged["inbox_rows"] += len(claimed) - len(in_place)
        handled = [record for record in page if record.offset < self._watermarks.get(number, 0)]
        self._judge_handled(partition, [record for record in handled if record.message_id not in in_place])
        self._judge_results([record for record in page if record.message_id in in_place])

    def finish(self, partition: TopicPartition) -> None:
        """Pass over what the inbox has of the partition past the log's end."""
        self._pass_over(partition.partition + 1, 0)

    def _pass_over(self, partition: int, offset: int) -> None:
        self._findings.unjudged["inbox_rows"] += sum(1 for _ in self._claimed.until(partition, offset))

    def _judge_handled(self, partition: TopicPartition, records: Sequence[Record]) -> None:
        """Judge what is below the watermark and is not claimed at its place: repetitions, or lost."""
        ids = [record.message_id for record in records if record.message_id]
        known: set[str | None] = set()
        if ids:
            rows = self._reader.rows(_CLAIMED_BY_ID, consumer=self._reader.service, ids=ids)
            known = {row.message_id for row in rows}
        lost = [r for r in records if r.message_id not in known and r.timestamp_ms >= self._oldest_ms]
        aside = set_aside(self._reader, partition, lost)
        for record in lost:
            if record.offset not in aside:
                watermark = self._watermarks[partition.partition]
                self._findings.add("7", record.about(), watermark=watermark, inbox=None)

    def _judge_results(self, claimed: Sequence[Record]) -> None:
        asked = {record.offset: record.order_id for record in claimed if record.type in _RESULTS}
        ids = [order_id for order_id in asked.values() if order_id is not None]
        rows = self._reader.rows(_STATUS_OF[self._reader.service], ids=ids) if ids else []
        status = {row.order_id: row.status for row in rows}
        wrong = [
            r for r in claimed if r.offset in asked and status.get(asked[r.offset]) not in _RESULTS[r.type]
        ]
        parked = set()
        if wrong and self._reader.has_dead_letters:
            found = self._reader.rows(_HAS_NO_EFFECT, ids=[record.message_id for record in wrong])
            parked = {row.message_id for row in found}
        for record in wrong:
            if record.message_id not in parked:
                result = {self._reader.service: status.get(asked[record.offset])}
                self._findings.add("7", record.about(), inbox=f"{record.type} was handled", **result)


def set_aside(reader: Snapshot, partition: TopicPartition, messages: Sequence[Placed]) -> set[int]:
    """Return the offsets of those messages of a partition that are the reader's dead letters."""
    if not messages or not reader.has_dead_letters:
        return set()
    rows = reader.rows(
        _SET_ASIDE,
        topic=partition.topic,
        partition=partition.partition,
        offsets=[message.offset for message in messages],
        ids=[message.message_id for message in messages if message.message_id is not None],
    )
    offsets, ids = {row.at for row in rows}, {row.message_id for row in rows}
    return {message.offset for message in messages if message.offset in offsets or message.message_id in ids}
