"""Publishes rows of the outbox to one partition at a time, in order."""

import logging
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    LeaderNotAvailableError,
    MessageSizeTooLargeError,
    NotLeaderForPartitionError,
    RecordListTooLargeError,
    UnknownTopicOrPartitionError,
)

from eshop.cancellation import bounded
from eshop.contracts.envelope import Envelope
from eshop.contracts.services import TOPICS
from eshop.kafka.topics import ONE_COPY, Copies, ensure_topics
from eshop.store.outbox import Sent, Unsent

logger = logging.getLogger(__name__)

#: How long the broker may take to have a batch on all replicas.
REQUEST_MS_MAX = 10_000
BATCH_BYTES_MAX = 512 * 1024
START_SECONDS_MAX = 10.0
STOP_SECONDS_MAX = 5.0
#: Metadata, a place in the producer's queue and the broker's answer may take a request's time each.
SEND_SECONDS_MAX = 35.0
ENSURE_SECONDS_MAX = 30.0

_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)
_MAY_BE_GONE = (UnknownTopicOrPartitionError, NotLeaderForPartitionError, LeaderNotAvailableError)


class Publisher:
    """A Kafka producer that sends explicit batches, one per partition in flight.

    Implicit batches are unsafe: even an idempotent producer may fail a batch on expiry and send the next.
    """

    def __init__(self, kafka: str, topic_prefix: str, copies: Copies = ONE_COPY) -> None:
        """Prepare; ``copies`` is for topics that must be created."""
        self._kafka = kafka
        self._topic_prefix = topic_prefix
        self._copies = copies
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        """Have a producer; raise KafkaError or TimeoutError if the broker does not answer."""
        if self._producer is not None:
            return
        producer = AIOKafkaProducer(
            bootstrap_servers=self._kafka,
            acks="all",
            linger_ms=0,
            max_batch_size=BATCH_BYTES_MAX,
            request_timeout_ms=REQUEST_MS_MAX,
            retry_backoff_ms=100,
        )
        try:
            await bounded(producer.start(), START_SECONDS_MAX)
        except BaseException:
            await _stop(producer)
            raise
        self._producer = producer

    async def publish(
        self, topic: str, partition: int, rows: Sequence[Unsent]
    ) -> tuple[list[Sent], Exception | None]:
        """Publish the rows in order; return those that all replicas have, and the error that stopped it.

        After an error no later row is sent, so that the rows of a user never overtake each other. A topic
        that may be gone is created for the next attempt.
        """
        sent: list[Sent] = []
        try:
            await self._publish(topic, partition, rows, sent)
        except Exception as error:  # noqa: BLE001  whatever it is, it holds up this partition only
            if isinstance(error, _MAY_BE_GONE):
                await self._ensure(topic)
            return sent, error
        return sent, None

    async def reset(self) -> None:
        """Drop the producer; ``start`` makes a new one."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await _stop(producer)

    async def _publish(self, topic: str, partition: int, rows: Sequence[Unsent], sent: list[Sent]) -> None:
        """Append to ``sent`` batch by batch. A batch that is too large for the broker is halved."""
        rows_max = len(rows)
        while remaining := rows[len(sent) :]:
            batch, taken = self._batch(remaining[:rows_max])
            try:
                base = await bounded(self._send(batch, topic, partition), SEND_SECONDS_MAX)
            except _TOO_LARGE:
                if taken == 1:
                    logger.error("message %s is too large for the broker", remaining[0].message_id)  # noqa: TRY400  no trace needed
                    raise
                rows_max = taken // 2
                continue
            sent += [
                Sent(row.outbox_id, partition, base + index) for index, row in enumerate(remaining[:taken])
            ]

    def _batch(self, rows: Sequence[Unsent]) -> tuple[Any, int]:
        """Return a batch with as many rows as fit, at least one, and their number."""
        batch, taken = self._live_producer.create_batch(), 0
        for row in rows:
            if not _append(batch, row):
                break
            taken += 1
        return batch, taken

    async def _send(self, batch: Any, topic: str, partition: int) -> int:
        """Return the offset of the batch's first message after every replica has it."""
        delivery = await self._live_producer.send_batch(
            batch, self._topic_prefix + topic, partition=partition
        )
        return int((await delivery).offset)

    async def _ensure(self, topic: str) -> None:
        wanted = [known for known in TOPICS if known.name == topic]
        try:
            await bounded(
                ensure_topics(self._kafka, self._topic_prefix, self._copies, wanted), ENSURE_SECONDS_MAX
            )
        except Exception as error:  # noqa: BLE001  the next attempt tries again
            logger.warning("can't make sure that %s is there: %r", topic, error)

    @property
    def _live_producer(self) -> AIOKafkaProducer:
        if self._producer is None:
            raise ConnectionError("there is no producer")
        return self._producer


async def _stop(producer: AIOKafkaProducer) -> None:
    try:
        await bounded(producer.stop(), STOP_SECONDS_MAX)
    except Exception as error:  # noqa: BLE001  it is dropped all the same
        logger.warning("the old producer did not stop cleanly: %r", error)


def _append(batch: Any, row: Unsent) -> bool:
    """Add a row to the batch; return False if the batch is full."""
    message = row.message
    envelope = Envelope(
        message_id=row.message_id,
        type=message.type,
        source=message.source,
        dataschema=message.dataschema,
        time=row.created_at,
        correlation_id=message.correlation_id,
        causation_id=message.causation_id,
        traceparent=message.traceparent,
    )
    added = batch.append(
        key=message.user_id.encode(),
        value=message.body.encode(),
        timestamp=None,
        headers=envelope.to_headers(),
    )
    return added is not None
