"""The reader of the event topics: every gateway reads all of them, from the end, without a group.

It never stops trying. After an outage of Kafka, feeds read the history (`gateway/feed/reconcile.py`).
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from aiokafka import AIOKafkaConsumer, ConsumerRecord
from aiokafka.errors import KafkaError

from eshop.backoff import Backoff
from eshop.contracts.bodies import UnknownEvent
from eshop.contracts.envelope import UndecodableMessage
from eshop.contracts.messages import Message, Origin, decode
from eshop.kafka.record_batches import tolerate_unreadable
from gateway.metrics import Metrics

#: Records that are handled before other tasks get a turn on the event loop.
RECORDS_PER_TURN_MAX = 200
POLL_MS = 1_000
REQUEST_MS = 10_000
START_SECONDS_MAX = 15.0
BACKOFF_SECONDS_MIN = 0.25
BACKOFF_SECONDS_MAX = 5.0
#: New partitions are found after this time.
METADATA_AGE_MS = 30_000

logger = logging.getLogger(__name__)


class Events:
    """The consumer. ``attached`` is called with True when reading begins, with False when it fails."""

    def __init__(
        self,
        kafka: str,
        topics: Sequence[str],
        handle: Callable[[Message], None],
        attached: Callable[[bool], None],
        metrics: Metrics,
    ) -> None:
        tolerate_unreadable()
        self._kafka = [address.strip() for address in kafka.split(",")]
        self._topics = tuple(topics)
        self._handle = handle
        self._attached = attached
        self._metrics = metrics
        self._consumer: AIOKafkaConsumer | None = None

    async def run(self) -> None:
        """Read until cancelled; after a failure again, with a growing pause."""
        backoff = Backoff(BACKOFF_SECONDS_MIN, BACKOFF_SECONDS_MAX)
        while True:
            began = asyncio.get_running_loop().time()
            try:
                await self._read()
            except (KafkaError, OSError, TimeoutError) as error:
                logger.warning("the event topics can't be read: %s", type(error).__name__)
            except Exception:
                logger.exception("reading the event topics failed")
            finally:
                self._set_attached(None)
            if asyncio.get_running_loop().time() - began > START_SECONDS_MAX + BACKOFF_SECONDS_MAX:
                backoff.succeeded()
            await asyncio.sleep(backoff.failed())

    async def check(self) -> None:
        """Ask the broker for a sign of life; raise if there is none, or if nothing is being read."""
        if self._consumer is None:
            raise ConnectionError("not attached")
        partition = next(iter(self._consumer.assignment()))
        await self._consumer.end_offsets([partition])

    async def _read(self) -> None:
        consumer = AIOKafkaConsumer(
            *self._topics,
            bootstrap_servers=self._kafka,
            client_id="eshop-gateway",
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="latest",
            request_timeout_ms=REQUEST_MS,
            metadata_max_age_ms=METADATA_AGE_MS,
            retry_backoff_ms=200,
        )
        try:
            async with asyncio.timeout(START_SECONDS_MAX):
                await consumer.start()
                # Positions are found lazily: only when all are, nothing can be missed any more.
                for partition in consumer.assignment():
                    await consumer.position(partition)
            self._set_attached(consumer)
            while True:
                batches = await consumer.getmany(timeout_ms=POLL_MS, max_records=RECORDS_PER_TURN_MAX)
                for records in batches.values():
                    for record in records:
                        self._take(record)
                await asyncio.sleep(0)
        finally:
            await consumer.stop()

    def _take(self, record: "ConsumerRecord[bytes, bytes]") -> None:
        self._metrics.events.labels(record.topic).inc()
        origin = Origin(record.topic, record.partition, record.offset)
        try:
            message = decode(origin, record.key, record.value, record.headers)
        except UndecodableMessage as error:
            # The services park the message. Feeds fill its gap from history.
            self._metrics.undecodable.inc()
            logger.warning("passed over %s: %s", origin, str(error)[:200])
            return
        if isinstance(message.body, UnknownEvent):
            # A newer service has sent the message. Feeds get its change from history.
            self._metrics.unknown_types.inc()
        self._handle(message)

    def _set_attached(self, consumer: AIOKafkaConsumer | None) -> None:
        changed = (self._consumer is None) != (consumer is None)
        self._consumer = consumer
        self._metrics.attached.set(consumer is not None)
        if changed:
            logger.info("the event topics are %s", "lost" if consumer is None else "being read")
            self._attached(consumer is not None)
