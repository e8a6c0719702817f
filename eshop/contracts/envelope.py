"""The envelope of every message: the metadata, readable without the body.

The envelope travels in Kafka headers like in the CloudEvents Kafka binding (binary mode).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from eshop.contracts.times import in_utc

Headers = list[tuple[str, bytes]]

_SPEC_VERSION = "1.0"
#: Messages inherit headers from their cause, and the broker refuses a message that is too large.
HEADER_CHARACTERS_MAX = 255
#: Other headers are tolerated with any content.
_READ = frozenset(
    {
        "ce_id",
        "ce_type",
        "ce_source",
        "ce_dataschema",
        "ce_time",
        "correlation_id",
        "causation_id",
        "traceparent",
    }
)
#: The form that every service writes: parsing it and writing it again costs more than all other headers.
_is_canonical = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch


class UndecodableMessage(ValueError):
    """A message that no reader of this version can ever understand. ``cause`` is the reason for parking."""

    cause = "undecodable"


class UnreadableRecord(UndecodableMessage):
    """A record that the client library could not parse: no version of the shop will understand it."""

    cause = "unreadable"


@dataclass(frozen=True, slots=True)
class Envelope:
    """Identity and origin of a message. ``message_id`` is the outbox's, the same in every repetition.

    After reading, ``time`` is in UTC, in the bounds of ``times``: readers compute with it as it is.
    """

    message_id: str
    type: str
    source: str
    dataschema: str
    time: datetime
    correlation_id: str
    causation_id: str
    traceparent: str = ""

    def to_headers(self) -> Headers:
        """Return the envelope as Kafka headers."""
        pairs = {
            "ce_specversion": _SPEC_VERSION,
            "ce_id": self.message_id,
            "ce_type": self.type,
            "ce_source": self.source,
            "ce_time": self.time.isoformat(),
            "ce_dataschema": self.dataschema,
            "content-type": "application/json",
            "correlation_id": self.correlation_id,
            "causation_id": self.causation_id,
        }
        if self.traceparent:
            pairs["traceparent"] = self.traceparent
        return [(name, text.encode()) for name, text in pairs.items()]

    @classmethod
    def from_headers(cls, headers: Iterable[tuple[str, bytes | None]]) -> "Envelope":
        """Read the envelope; raise UndecodableMessage if a header is missing or malformed."""
        try:
            text = {name: _text(value) for name, value in headers if name in _READ}
            message_id = text["ce_id"]
            return cls(
                message_id=message_id if _is_canonical(message_id) else str(UUID(message_id)),
                type=text["ce_type"],
                source=text["ce_source"],
                dataschema=text["ce_dataschema"],
                time=in_utc(datetime.fromisoformat(text["ce_time"])),
                correlation_id=text["correlation_id"],
                causation_id=text["causation_id"],
                traceparent=text.get("traceparent", ""),
            )
        except KeyError as missing:
            raise UndecodableMessage(f"header {missing} is missing") from missing
        except ValueError as error:
            raise UndecodableMessage(f"a header is malformed: {error}") from error


def _text(value: bytes | None) -> str:
    """Return a header's text; raise ValueError if Postgres can't hold it as text. Null is empty."""
    text = (value or b"").decode()
    if len(text) > HEADER_CHARACTERS_MAX or "\x00" in text:
        raise ValueError(f"it is longer than {HEADER_CHARACTERS_MAX} characters, or holds a NUL")
    return text
