"""The broker: starts and ends of logs, committed offsets, and the records, page by page."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self
from uuid import UUID

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from eshop.kafka.group_errors import heed_group_errors
from eshop.kafka.record_batches import tolerate_unreadable

PAGE_RECORDS = 5_000
REQUEST_MS_MAX = 10_000
#: The broker delivers the records below a known end within this time, or it is unhealthy.
STALL_SECONDS_MAX = 30.0
RETRY_SECONDS = 0.2
#: Between partitions the consumer polls for records that do not exist: the broker must not wait long for
#: them.
FETCH_WAIT_MS_MAX = 20

Offsets = Mapping[TopicPartition, int]


@dataclass(frozen=True, slots=True)
class Record:
    """A message on a topic. ``message_id`` is None unless it is a UUID."""

    partition: TopicPartition
    offset: int
    message_id: str | None
    type: str
    key: bytes
    value: bytes
    timestamp_ms: int

    @property
    def order_id(self) -> str | None:
        """The order of the message, if there is one."""
        try:
            return str(UUID(json.loads(self.value)["order_id"]))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return None

    def about(self) -> dict[str, object]:
        """Return the message in the form of a finding."""
        told: dict[str, object] = {"message": self.message_id or "without an id"}
        if (order_id := self.order_id) is not None:
            told["order"] = order_id
        return told | {"user": self.key.decode(errors="replace"), "place": place(self.partition, self.offset)}


def place(partition: TopicPartition, offset: int) -> str:
    """Return the place of a message as people write it."""
    return f"{partition.topic}/{partition.partition}@{offset}"


def read_record(partition: TopicPartition, record: Any) -> Record:
    """Return the fields of a consumer's record that the audit needs."""
    headers = dict(record.headers)
    return Record(
        partition,
        record.offset,
        _uuid(headers.get("ce_id") or b""),
        (headers.get("ce_type") or b"").decode(errors="replace"),
        record.key or b"",
        record.value or b"",
        record.timestamp,
    )


def _uuid(text: bytes) -> str | None:
    try:
        return str(UUID(text.decode()))
    except ValueError:
        return None


class Broker:
    """Reads topics without a group, so no group is disturbed."""

    def __init__(self, kafka: str) -> None:
        heed_group_errors()
        tolerate_unreadable()
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=kafka,
            client_id="eshop-audit",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            request_timeout_ms=REQUEST_MS_MAX,
            fetch_max_wait_ms=FETCH_WAIT_MS_MAX,
        )
        self._admin = AIOKafkaAdminClient(
            bootstrap_servers=kafka, client_id="eshop-audit", request_timeout_ms=REQUEST_MS_MAX
        )

    async def __aenter__(self) -> Self:
        """Connect."""
        try:
            await self._consumer.start()
            await self._admin.start()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect."""
        await self._close()

    async def _close(self) -> None:
        await self._consumer.stop()
        await self._admin.close()

    async def partitions(self, topics: Iterable[str]) -> list[TopicPartition]:
        """Return the topics' partitions in order; raise KafkaError if a topic is missing."""
        found: list[TopicPartition] = []
        for described in await self._admin.describe_topics(list(topics)):
            if described["error_code"]:
                raise UnknownTopicOrPartitionError(f"the topic {described['topic']} is not there")
            found += [TopicPartition(described["topic"], one["partition"]) for one in described["partitions"]]
        return sorted(found)

    async def starts(self, partitions: Iterable[TopicPartition]) -> Offsets:
        """Return the first offset of each log."""
        return dict(await self._consumer.beginning_offsets(list(partitions)))

    async def ends(self, partitions: Iterable[TopicPartition]) -> Offsets:
        """Return the end of each log: the offset of the next message."""
        return dict(await self._consumer.end_offsets(list(partitions)))

    async def committed(self, group: str, partitions: Iterable[TopicPartition]) -> Offsets:
        """Return a group's committed offsets of the partitions, without partitions that have none."""
        known = await self._group_offsets(group)
        return {tp: known[tp].offset for tp in partitions if tp in known and known[tp].offset >= 0}

    async def _group_offsets(self, group: str) -> dict[TopicPartition, Any]:
        """Ask the group's coordinator, which a broker that has just started must find first."""
        async with asyncio.timeout(STALL_SECONDS_MAX):
            while True:
                try:
                    return dict(await self._admin.list_consumer_group_offsets(group))
                except KafkaError as error:
                    if not error.retriable:
                        raise
                await asyncio.sleep(RETRY_SECONDS)

    async def records(self, partition: TopicPartition, start: int, end: int) -> AsyncIterator[list[Record]]:
        """Yield the records of a log from an offset up to another, page by page."""
        if start >= end:
            return
        self._consumer.assign([partition])
        self._consumer.seek(partition, start)
        while True:
            async with asyncio.timeout(STALL_SECONDS_MAX):
                page: list[Record] = []
                while not page and await self._consumer.position(partition) < end:
                    got = await self._consumer.getmany(partition, timeout_ms=500, max_records=PAGE_RECORDS)
                    page = [read_record(partition, one) for one in got.get(partition, ()) if one.offset < end]
            if not page:
                return
            yield page
