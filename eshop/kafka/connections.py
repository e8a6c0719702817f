"""aiokafka on uvloop: a write to a broken connection becomes an error that aiokafka retries."""

from functools import wraps
from typing import Any

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError

_send = AIOKafkaConnection.send


@wraps(_send)
def _send_or_close(self: AIOKafkaConnection, request: Any, expect_response: bool = True) -> Any:
    try:
        return _send(self, request, expect_response)
    except RuntimeError as error:
        self.close(reason=CloseReason.CONNECTION_BROKEN)
        raise KafkaConnectionError(f"Connection at {self.host}:{self.port} broken: {error}") from error


def report_broken_connections() -> None:
    """Have aiokafka raise KafkaConnectionError if it writes to a closed connection; safe to repeat.

    aiokafka expects OSError of a write, as asyncio's transports raise it, but uvloop's transports raise
    RuntimeError. The RuntimeError ended workers and the task that keeps aiokafka's metadata: their users
    waited without an end.
    """
    AIOKafkaConnection.send = _send_or_close
