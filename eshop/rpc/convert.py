"""What both services' calls have in common, between protobuf and Python, and the checks at the edge."""

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from eshop.contracts.proto import shared_v1_pb2 as shared
from eshop.domain.money import AMOUNT_MINOR_MAX
from eshop.domain.refusal import Refusal
from eshop.handlers.announce import Cause
from eshop.rpc.server import InvalidRequest

USER_ID_CHARACTERS_MAX = 128
KEY_CHARACTERS_MAX = 255


def timestamp(at: datetime) -> Timestamp:
    """Return a time as protobuf has it."""
    stamp = Timestamp()
    stamp.FromDatetime(at)
    return stamp


def moment(stamp: Timestamp) -> datetime:
    """Return a protobuf time in UTC."""
    return stamp.ToDatetime(tzinfo=UTC)


def cause_of(context: shared.RequestContext, fallback_id: str) -> Cause:
    """Return what follows from a request: the request is its own cause."""
    correlation_id = context.correlation_id or fallback_id
    return Cause(correlation_id, correlation_id, context.traceparent)


def refusal(refused: Refusal) -> shared.Refusal:
    """Return a refusal as it is answered."""
    return shared.Refusal(code=refused.code, detail=refused.detail)


def check_user(user_id: str) -> str:
    """Return the user's id; raise InvalidRequest where it can't be one."""
    if not 0 < len(user_id) <= USER_ID_CHARACTERS_MAX or "\x00" in user_id:
        raise InvalidRequest("user_id is missing or malformed")
    return user_id


def check_amount(amount_minor: int) -> int:
    """Return the amount; raise InvalidRequest where it is out of bounds."""
    if not 0 < amount_minor <= AMOUNT_MINOR_MAX:
        raise InvalidRequest(f"amount_minor must be from 1 to {AMOUNT_MINOR_MAX}")
    return amount_minor


def check_currency(currency: str) -> str:
    """Return the currency; raise InvalidRequest where it can't be one."""
    if not (len(currency) == 3 and currency.isascii() and currency.isalpha() and currency.isupper()):
        raise InvalidRequest("currency must be three capital letters")
    return currency


def check_context(context: shared.RequestContext) -> None:
    """Raise InvalidRequest where a request's user or key can't be one."""
    check_user(context.user_id)
    if len(context.idempotency_key) > KEY_CHARACTERS_MAX or "\x00" in context.idempotency_key:
        raise InvalidRequest("idempotency_key is malformed")
    if context.idempotency_key and not context.fingerprint:
        raise InvalidRequest("a request with an idempotency key has a fingerprint")


def bounded(limit: int, limit_max: int) -> int:
    """Return a page's size within its bounds."""
    return max(1, min(limit, limit_max))
