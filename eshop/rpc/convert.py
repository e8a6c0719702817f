"""Conversions between protobuf and Python for all servicers, and the checks at the edge."""

from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from eshop.contracts.limits import IDEMPOTENCY_KEY_CHARACTERS_MAX, USER_ID_CHARACTERS_MAX
from eshop.contracts.proto import shared_v1_pb2 as shared
from eshop.domain.money import AMOUNT_MINOR_MAX
from eshop.domain.refusal import Refusal
from eshop.handlers.announce import Cause
from eshop.rpc.server import InvalidRequest

OPERATOR_CHARACTERS_MAX = 500
#: Above every feed number: the newest page.
NUMBER_MAX = 2**63 - 1
#: Correlation ids travel in the headers of every later message, and the broker bounds a message.
TRACE_CHARACTERS_MAX = 128
#: SHA-256.
FINGERPRINT_BYTES_MAX = 32


class HasOperator(Protocol):
    """A request of an operator."""

    reason: str
    operator: str


def timestamp(at: datetime) -> Timestamp:
    """Return a time as a protobuf timestamp."""
    stamp = Timestamp()
    stamp.FromDatetime(at)
    return stamp


def moment(stamp: Timestamp) -> datetime:
    """Return a protobuf timestamp in UTC; raise InvalidRequest if it is outside of the calendar."""
    try:
        return stamp.ToDatetime(tzinfo=UTC)
    except ValueError as error:
        raise InvalidRequest("a time is out of range") from error


def cause_of(context: shared.RequestContext, fallback_id: str) -> Cause:
    """Return the cause of messages that follow from a request: the request is its own cause."""
    correlation_id = context.correlation_id or fallback_id
    return Cause(correlation_id, correlation_id, context.traceparent)


def refusal(refused: Refusal) -> shared.Refusal:
    """Return a refusal as a reply."""
    return shared.Refusal(code=refused.code, detail=refused.detail)


def check_text(name: str, text: str, characters_max: int) -> str:
    """Return the text; raise InvalidRequest if it is too long, or Postgres could not hold it."""
    if len(text) > characters_max or "\x00" in text:
        raise InvalidRequest(f"{name} is malformed")
    return text


def check_user(user_id: str) -> str:
    """Return the user's id; raise InvalidRequest if it is malformed."""
    if not user_id:
        raise InvalidRequest("user_id is missing")
    return check_text("user_id", user_id, USER_ID_CHARACTERS_MAX)


def check_amount(amount_minor: int) -> int:
    """Return the amount; raise InvalidRequest if it is out of bounds."""
    if not 0 < amount_minor <= AMOUNT_MINOR_MAX:
        raise InvalidRequest(f"amount_minor must be from 1 to {AMOUNT_MINOR_MAX}")
    return amount_minor


def check_currency(currency: str) -> str:
    """Return the currency; raise InvalidRequest if it is malformed."""
    if not (len(currency) == 3 and currency.isascii() and currency.isalpha() and currency.isupper()):
        raise InvalidRequest("currency must be three capital letters")
    return currency


def check_context(context: shared.RequestContext) -> None:
    """Raise InvalidRequest if the request's context can't be stored."""
    check_user(context.user_id)
    check_text("correlation_id", context.correlation_id, TRACE_CHARACTERS_MAX)
    check_text("traceparent", context.traceparent, TRACE_CHARACTERS_MAX)
    check_text("idempotency_key", context.idempotency_key, IDEMPOTENCY_KEY_CHARACTERS_MAX)
    if context.idempotency_key and not 0 < len(context.fingerprint) <= FINGERPRINT_BYTES_MAX:
        raise InvalidRequest("a request with an idempotency key has a fingerprint of up to 32 bytes")


def check_operator(request: HasOperator) -> tuple[str, str]:
    """Return reason and operator; raise InvalidRequest if one is missing or malformed."""
    for name, text in (("reason", request.reason), ("operator", request.operator)):
        if not check_text(name, text, OPERATOR_CHARACTERS_MAX).strip():
            raise InvalidRequest(f"{name} is missing")
    return request.reason, request.operator


def uuid_text(text: str) -> str | None:
    """Return the id as the database writes it, or None if it is no UUID."""
    try:
        return str(UUID(text))
    except ValueError:
        return None


def bounded(limit: int, limit_max: int) -> int:
    """Return a page's size within its bounds."""
    return max(1, min(limit, limit_max))
