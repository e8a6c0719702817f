"""Services' answers as plain data, to be printed as JSON."""

import base64
from datetime import UTC
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp


def time_text(stamp: Timestamp) -> str:
    """Return a time in UTC, to the microsecond."""
    return stamp.ToDatetime(tzinfo=UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def text_of(content: bytes) -> str:
    """Return bytes as text, or in base64 after "base64:" if they are no text."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return f"base64:{base64.b64encode(content).decode()}"


def plain(message: Message) -> dict[str, Any]:
    """Return a message's fields by name; None for missing ones."""
    fields: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            fields[field.name] = [_plain(item) for item in value]
        else:
            is_there = not field.has_presence or message.HasField(field.name)
            fields[field.name] = _plain(value) if is_there else None
    return fields


def _plain(value: Any) -> Any:
    match value:
        case Timestamp():
            return time_text(value)
        case Message():
            return plain(value)
        case bytes():
            return text_of(value)
        case _:
            return value or None if isinstance(value, str) else value
