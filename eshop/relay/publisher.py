"""Publishes rows of the outbox to one partition at a time, in order."""

import logging
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.partitioner import DefaultPartitioner

from eshop.contracts.envelope import Envelope
from eshop.store.outbox import Outgoing, Sent, Unsent

logger = logging.getLogger(__name__)

#: How long the broker may take to have a batch on all replicas.
REQUEST_MS_MAX = 10_000
BATCH_BYTES_MAX = 512 * 1024


class Publisher:
    """A Kafka producer that sends explicit batches, one per partition in flight.

    Implicit batches would not do: even an idempotent producer may fail one on expiry and send the next.
    """

    def __init__(self, kafka: str, topic_prefix: str) -> None:
        self._kafka = kafka
        self._topic_prefix = topic_prefix
        self._producer: AIOKafkaProducer | None = None
        self._partitions: dict[str, list[int]] = {}

    async def partition_of(self, message: Outgoing) -> int:
        """Return the partition of the message's user."""
        topic = message.topic
        if topic not in self._partitions:
            producer = await self._started()
            self._partitions[topic] = sorted(await producer.partitions_for(self._topic_prefix + topic))
        partitions = self._partitions[topic]
        return int(DefaultPartitioner()(message.user_id.encode(), partitions, partitions))

    async def publish(
        self, topic: str, partition: int, rows: Sequence[Unsent]
    ) -> tuple[list[Sent], Exception | None]:
        """Publish the rows in order; return those that all replicas have, and the error that stopped it.

        After an error nothing later is sent, so that the rows of a user never overtake each other.
        """
        sent: list[Sent] = []
        try:
            producer = await self._started()
            remaining = list(rows)
            while remaining:
                batch = producer.create_batch()
                taken = 0
                for row in remaining:
                    if not _append(batch, row):
                        break
                    taken += 1
                delivery = await producer.send_batch(batch, self._topic_prefix + topic, partition=partition)
                base = (await delivery).offset
                sent += [
                    Sent(row.outbox_id, partition, base + index)
                    for index, row in enumerate(remaining[:taken])
                ]
                del remaining[:taken]
        except (KafkaError, TimeoutError, OSError) as error:
            return sent, error
        return sent, None

    async def reset(self) -> None:
        """Drop the producer: the next call makes a new one."""
        producer, self._producer = self._producer, None
        self._partitions.clear()
        if producer is None:
            return
        try:
            await producer.stop()
        except Exception:
            logger.exception("the old producer did not stop cleanly")

    async def _started(self) -> AIOKafkaProducer:
        if self._producer is None:
            producer = AIOKafkaProducer(
                bootstrap_servers=self._kafka,
                acks="all",
                linger_ms=0,
                max_batch_size=BATCH_BYTES_MAX,
                request_timeout_ms=REQUEST_MS_MAX,
                retry_backoff_ms=100,
            )
            try:
                await producer.start()
            except BaseException:
                await producer.stop()
                raise
            self._producer = producer
        return self._producer


def _append(batch: object, row: Unsent) -> bool:
    """Add a row to the batch; False where the batch is full."""
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
    added = batch.append(  # type: ignore[attr-defined]
        key=message.user_id.encode(),
        value=message.body.encode(),
        timestamp=None,
        headers=envelope.to_headers(),
    )
    return added is not None
