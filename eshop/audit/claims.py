"""A topic against its reader's inbox: every read message is claimed, and every claim has its result."""

from collections.abc import Sequence
from typing import Protocol

from aiokafka import TopicPartition

from eshop.audit.broker import Record
from eshop.audit.databases import Database, Snapshot
from eshop.audit.findings import Findings
from eshop.audit.questions import QUESTIONS, spool_questions
from eshop.audit.spool import Spool

_CLAIMED = """
SELECT message_id, topic, partition, "offset" AS at FROM inbox
WHERE consumer = %(consumer)s AND message_id = ANY (%(ids)s::uuid[])
"""
_INBOX_ROWS = "SELECT count(*) AS number FROM inbox WHERE consumer = %(consumer)s AND topic = %(topic)s"
_WATERMARK = """
SELECT next_offset FROM watermarks
WHERE consumer = %(consumer)s AND topic = %(topic)s AND partition = %(partition)s
"""
#: By place, or by id: the inbox drops a redelivery under the same id.
_SET_ASIDE = """
SELECT "offset" AS at, message_id FROM dead_letters
WHERE topic = %(topic)s
    AND (partition = %(partition)s AND "offset" = ANY (%(offsets)s) OR message_id = ANY (%(ids)s::uuid[]))
"""
_HAS_NO_EFFECT = """
SELECT message_id FROM dead_letters WHERE status <> 'replayed' AND message_id = ANY (%(ids)s::uuid[])
"""
#: The result of each type: after it, the status of the order (or the payment) is one of these. None: the
#: order may be missing if its money was given back, which invariant 4 judges.
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
    """A message on a topic."""

    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def message_id(self) -> str | None: ...  # noqa: D102


class Claims:
    """Judges 7 for a topic, page by page, and collects the commands for 13."""

    def __init__(
        self, reader: Database, topic: str, oldest_ms: int, spool: Spool, findings: Findings
    ) -> None:
        """Begin. The inbox may have deleted older messages, and the outbox their results."""
        self._reader = reader
        self._topic = topic
        self._oldest_ms = oldest_ms
        self._spool = spool
        self._findings = findings
        with reader.snapshot() as snapshot:
            rows = snapshot.rows(_INBOX_ROWS, consumer=reader.service, topic=topic)
        self._elsewhere = rows[0].number

    def judge(self, partition: TopicPartition, page: Sequence[Record]) -> None:
        """Judge some records of a partition."""
        ids = [record.message_id for record in page if record.message_id]
        with self._reader.snapshot() as reader:
            rows = reader.rows(_CLAIMED, consumer=reader.service, ids=ids)
            claimed = {row.message_id: (row.topic, row.partition, row.at) for row in rows}
            handled = _handled(reader, partition, page)
            self._judge_handled(reader, partition, [r for r in handled if r.message_id not in claimed])
            in_place = [r for r in page if claimed.get(r.message_id) == (*r.partition, r.offset)]
            self._judge_results(reader, in_place)
            self._note_questions(reader, [r for r in page if r.message_id in claimed and r.type in QUESTIONS])
        self._findings.checked["inbox_rows"] += len(in_place)
        self._elsewhere -= len(in_place)

    def finish(self) -> None:
        """Count inbox rows of the topic whose messages the log has deleted."""
        self._findings.unjudged["inbox_rows"] += max(0, self._elsewhere)

    def _judge_handled(
        self, reader: Snapshot, partition: TopicPartition, unclaimed: Sequence[Record]
    ) -> None:
        """Judge messages below the watermark without an inbox row."""
        lost = [record for record in unclaimed if record.timestamp_ms >= self._oldest_ms]
        aside = set_aside(reader, partition, lost)
        for record in lost:
            if record.offset not in aside:
                self._findings.add("7", record.about(), watermark="passed it", inbox=None)

    def _note_questions(self, reader: Snapshot, questions: Sequence[Record]) -> None:
        judged = [record for record in questions if record.timestamp_ms >= self._oldest_ms]
        self._findings.unjudged["questions"] += len(questions) - len(judged)
        parked = _without_effect(reader, judged)
        spool_questions([record for record in judged if record.message_id not in parked], self._spool)

    def _judge_results(self, reader: Snapshot, claimed: Sequence[Record]) -> None:
        asked = {record.offset: record.order_id for record in claimed if record.type in _RESULTS}
        ids = [order_id for order_id in asked.values() if order_id is not None]
        rows = reader.rows(_STATUS_OF[reader.service], ids=ids) if ids else []
        status = {row.order_id: row.status for row in rows}
        wrong = [
            r for r in claimed if r.offset in asked and status.get(asked[r.offset]) not in _RESULTS[r.type]
        ]
        parked = _without_effect(reader, wrong)
        for record in wrong:
            if record.message_id not in parked:
                result = {reader.service: status.get(asked[record.offset])}
                self._findings.add("7", record.about(), inbox=f"{record.type} was handled", **result)


def _handled(reader: Snapshot, partition: TopicPartition, page: Sequence[Record]) -> list[Record]:
    rows = reader.rows(_WATERMARK, consumer=reader.service, **partition._asdict())
    watermark = rows[0].next_offset if rows else 0
    return [record for record in page if record.offset < watermark]


def _without_effect(reader: Snapshot, claimed: Sequence[Record]) -> set[str]:
    """Return the ids of messages that were claimed to be parked, and not handled since."""
    if not claimed or not reader.has_dead_letters:
        return set()
    rows = reader.rows(_HAS_NO_EFFECT, ids=[record.message_id for record in claimed])
    return {row.message_id for row in rows}


def set_aside(reader: Snapshot, partition: TopicPartition, messages: Sequence[Placed]) -> set[int]:
    """Return the offsets of a partition's messages that are the reader's dead letters."""
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
