"""The base of all message bodies: frozen, strict about required fields, tolerant of unknown fields."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from eshop.contracts.limits import CURRENCY_PATTERN
from eshop.contracts.times import in_utc

#: 2**53 - 1: a reader in any language, JavaScript among them, reads it exactly.
INTEGER_MAX = 9_007_199_254_740_991
#: Kafka's own bounds.
PARTITION_MAX = 2**31 - 1
OFFSET_MAX = 2**63 - 1

#: Any text that Postgres can hold.
UserId = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00]*$")]
UuidText = Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
Currency = Annotated[str, Field(pattern=CURRENCY_PATTERN)]
AmountMinor = Annotated[int, Field(gt=0, le=INTEGER_MAX)]
BalanceMinor = Annotated[int, Field(ge=0, le=INTEGER_MAX)]
#: Counts from 1 without a gap: a user's feed number, a version.
Ordinal = Annotated[int, Field(ge=1, le=INTEGER_MAX)]
#: With a zone; in UTC after reading.
Moment = Annotated[datetime, AfterValidator(in_utc)]


class Body(BaseModel):
    """A message's JSON value. Unknown fields are tolerated: a newer writer may add optional ones."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    user_id: UserId


class UnknownEvent(Body):
    """A message whose type this version does not know, from a newer sender. Readers pass it over."""


class ParkedMessage(Body):
    """A poison message, its origin, and the reason why it was parked.

    ``user_id`` is the message's key, or "unknown". Long texts are cut: the service keeps the whole message.
    """

    dead_letter_id: UuidText
    message_id: UuidText
    topic: str
    partition: Annotated[int, Field(ge=0, le=PARTITION_MAX)]
    offset: Annotated[int, Field(ge=0, le=OFFSET_MAX)]
    cause: str
    error: str
    headers: dict[str, str]
    value: str | None = None
