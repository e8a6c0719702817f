"""The bodies of responses, for the API's description. A test compares them with real responses."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from eshop.contracts.statuses import Reason
from gateway.http.models import AmountMinor, Currency, ItemFields

Id = Annotated[str, Field(json_schema_extra={"format": "uuid"})]
Time = Annotated[str, Field(description="RFC 3339, UTC.", json_schema_extra={"format": "date-time"})]
Version = Annotated[int, Field(ge=1, description="Grows by one with each change.")]
NextCursor = Annotated[str | None, Field(description="The next page's cursor; null on the last page.")]


class Answer(BaseModel):
    """A body of a response. It has every field that is named here."""

    model_config = ConfigDict(extra="forbid")


class AccountAnswer(Answer):
    """The user's account."""

    balance_minor: Annotated[int, Field(ge=0, description="In minor units of the currency.")]
    currency: Currency
    version: Version
    frozen: Annotated[bool, Field(description="Present only if an operator has frozen the account.")] = False


class OrderAnswer(Answer):
    """An order."""

    order_id: Id
    status: Literal["NEW", "FINISHED", "CANCELLED"]
    reason: Annotated[Reason | None, Field(description="Why the order was cancelled.")]
    amount_minor: AmountMinor
    currency: Currency
    description: str | None
    items: list[ItemFields]
    version: Version
    created_at: Time
    updated_at: Time


class OrdersAnswer(Answer):
    """A page of orders, newest first."""

    items: list[OrderAnswer]
    next_cursor: NextCursor


class TransferAnswer(Answer):
    """A line of the account's statement."""

    transfer_id: Id
    kind: Literal["top_up", "capture", "refund"]
    amount_minor: Annotated[int, Field(description="Negative if money left the account.")]
    balance_minor: Annotated[int, Field(ge=0, description="The balance after the transfer.")]
    currency: Currency
    version: Version
    order_id: Id | None
    reference: str | None
    at: Time


class TransfersAnswer(Answer):
    """A page of the statement, newest first."""

    items: list[TransferAnswer]
    next_cursor: NextCursor


class StepAnswer(BaseModel):
    """A step of an order, with the details of its kind."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue]

    at: Time
    after_ms: Annotated[float, Field(description="Milliseconds since the step before.")]
    service: str
    what: str


class TimelineAnswer(Answer):
    """The steps of an order, in order of time."""

    order_id: Id
    user_id: str
    steps: list[StepAnswer]
    removed: Annotated[list[dict[str, JsonValue]], Field(description="The messages that retention deleted.")]
    waiting: Annotated[
        list[dict[str, JsonValue]], Field(description="The messages that are not handled yet.")
    ]


class HealthAnswer(Answer):
    """The process's health, with an entry for each dependency."""

    status: str
    checks: dict[str, str]


class LiveAnswer(Answer):
    """The process runs."""

    status: Literal["live"]


class FlawAnswer(Answer):
    """A flaw of a body."""

    pointer: Annotated[str, Field(description="The place in the body, as a JSON pointer (RFC 6901).")]
    message: str


class ProblemAnswer(Answer):
    """A refusal (RFC 9457)."""

    type: Annotated[str, Field(description="The page that explains the problem.")]
    title: str
    status: int
    detail: str
    code: Annotated[str, Field(description="The problem's stable name.")]
    trace_id: Annotated[str, Field(description="Missing from a 401, whose body is always the same.")] = ""
    errors: Annotated[list[FlawAnswer], Field(description="Present if the body has flaws.")] = []
