"""Errors of a whole consumer group, which aiokafka overlooks.

A broker that is not the group's coordinator any more, or not yet, answers a request for committed offsets
with one error and no partition. aiokafka looks for errors beside the partitions only, and returns no offsets:
to a reader that is a group without offsets, whose partitions are read again from their start.
"""

from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import for_code
from aiokafka.protocol.commit import OffsetFetchResponse_v2, OffsetFetchResponse_v3

_send = AIOKafkaClient.send


def heed_group_errors() -> None:
    """Have every client of this process raise them: retriable KafkaErrors. Safe to repeat."""
    AIOKafkaClient.send = _send_and_check


async def _send_and_check(self: AIOKafkaClient, *arguments: Any, **options: Any) -> Any:
    response = await _send(self, *arguments, **options)
    if isinstance(response, OffsetFetchResponse_v2 | OffsetFetchResponse_v3) and response.error_code:
        raise for_code(response.error_code)()
    return response
