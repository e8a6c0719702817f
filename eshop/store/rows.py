"""The rows that the store's reads return, as their readers see them: columns with types."""

from datetime import datetime
from typing import Any, Protocol


class FeedRow(Protocol):
    """An entry of a user's feed."""

    user_id: str
    feed_number: int
    at: datetime


class OrderChange(FeedRow, Protocol):
    """An entry of an order's history."""

    order_id: str
    version: int
    status: str
    reason: str | None


class OrderTerms(Protocol):
    """The fields of an order that its timeline needs."""

    user_id: str
    amount_minor: int
    currency: str
    created_at: datetime
    repeat_at: datetime
    cancellation_reason: str | None


class WalletEntry(FeedRow, Protocol):
    """An entry of a wallet's history."""

    balance_minor: int
    currency: str
    transfer_id: str | None


class StatementRow(Protocol):
    """A transfer in a user's wallet, with the balance after it."""

    feed_number: int
    transfer_id: str
    kind: str
    amount_minor: int
    balance_minor: int
    currency: str
    order_id: str | None
    reference: str | None
    at: datetime


class PaymentRow(Protocol):
    """A decision of payments."""

    user_id: str
    status: str
    reason: str | None
    decided_at: datetime


class PostingRow(Protocol):
    """A leg of a transfer; ``balance_minor`` and ``feed_number`` if the leg is the wallet's."""

    transfer_id: str
    kind: str
    currency: str
    created_at: datetime
    account: str
    amount_minor: int
    balance_minor: int | None
    feed_number: int | None


class OutboxRow(Protocol):
    """A message of the outbox; the place on the broker if it was sent."""

    outbox_id: int
    message_id: str
    topic: str
    type: str
    causation_id: str
    created_at: datetime
    sent_at: datetime | None
    sent_partition: int | None
    sent_offset: int | None


class InboxRow(Protocol):
    """A message of the inbox."""

    message_id: str
    topic: str
    partition: int
    offset: int
    received_at: datetime
    redelivered: int
    redelivered_at: datetime | None


class ParkedRow(Protocol):
    """A dead letter in a timeline."""

    dead_letter_id: str
    message_id: str
    cause: str
    status: str
    parked_at: datetime
    resolved_at: datetime | None


class LetterRow(ParkedRow, Protocol):
    """A dead letter in a list, without its content."""

    topic: str
    partition: int
    offset: int
    type: str | None
    user_id: str | None
    order_id: str | None
    error: str


class WholeLetter(LetterRow, Protocol):
    """A dead letter with its content; ``headers`` are pairs of name and base64."""

    key: bytes | memoryview | None
    value: bytes | memoryview | None
    headers: list[Any]


class LetterGroup(Protocol):
    """The dead letters of a cause and status: ``letters`` is their number."""

    cause: str
    status: str
    letters: int
    first_parked_at: datetime
    last_parked_at: datetime


class HeldRow(Protocol):
    """A held partition, with the number of parked messages."""

    topic: str
    partition: int
    parked: int


class ActionRow(Protocol):
    """An action of an operator."""

    action: str
    reason: str
    operator: str
    at: datetime
    dead_letter_id: str | None
    order_id: str | None


class KeptSince(Protocol):
    """The times before which rows of the outbox and of the inbox are deleted."""

    outbox: datetime
    inbox: datetime
