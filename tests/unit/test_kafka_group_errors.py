"""A coordinator that answers for the whole group: no offsets were read, and the request is repeated."""

import asyncio
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import GroupLoadInProgressError, NotCoordinatorForGroupError
from aiokafka.protocol.commit import OffsetFetchResponse_v2, OffsetFetchResponse_v3

from eshop.kafka import group_errors
from eshop.kafka.group_errors import heed_group_errors

PARTITION = TopicPartition("orders", 3)
STORED = ("orders", [(3, 45_488, "", 0)])
REFUSALS = [
    OffsetFetchResponse_v3(0, [], NotCoordinatorForGroupError.errno),
    OffsetFetchResponse_v3(0, [], GroupLoadInProgressError.errno),
    OffsetFetchResponse_v2([], NotCoordinatorForGroupError.errno),
]


class Coordinator(GroupCoordinator):  # type: ignore[misc]
    """A coordinator of the group that needs no broker to be found."""

    def __init__(self, client: AIOKafkaClient) -> None:
        self._client = client
        self._retry_backoff_ms = 1
        self.group_id = "payments"
        self.coordinator_id = 1
        self.found = 0

    async def ensure_coordinator_known(self) -> None:
        self.found += 1
        self._coordinator_dead_fut = asyncio.get_running_loop().create_future()
        self.coordinator_id = 1


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_error_of_the_group_is_no_group_without_offsets(
    monkeypatch: pytest.MonkeyPatch, refusal: Any
) -> None:
    answers = [refusal, refusal, OffsetFetchResponse_v3(0, [STORED], 0)]

    async def send(*_: Any, **__: Any) -> Any:
        return answers.pop(0)

    monkeypatch.setattr(group_errors, "_send", send)
    heed_group_errors()
    coordinator = Coordinator(AIOKafkaClient.__new__(AIOKafkaClient))
    async with asyncio.timeout(10):
        committed = await coordinator.fetch_committed_offsets([PARTITION])
    assert committed[PARTITION].offset == 45_488
    assert coordinator.found == 3


async def test_group_that_has_no_offset_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    async def send(*_: Any, **__: Any) -> Any:
        return OffsetFetchResponse_v3(0, [("orders", [(3, -1, "", 0)])], 0)

    monkeypatch.setattr(group_errors, "_send", send)
    heed_group_errors()
    coordinator = Coordinator(AIOKafkaClient.__new__(AIOKafkaClient))
    assert await coordinator.fetch_committed_offsets([PARTITION]) == {}
