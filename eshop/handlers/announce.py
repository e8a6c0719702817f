"""From the domain's words to messages: the only place that makes outgoing messages."""

from dataclasses import dataclass

from eshop.contracts.bodies import Body
from eshop.contracts.messages import Message, encode, schema_of
from eshop.store.outbox import Outgoing


@dataclass(frozen=True, slots=True)
class Cause:
    """The request or message from which a new message follows."""

    correlation_id: str
    causation_id: str
    traceparent: str = ""

    @classmethod
    def of(cls, message: Message) -> "Cause":
        """Return the cause of messages that follow from handling the message."""
        envelope = message.envelope
        return cls(envelope.correlation_id, envelope.message_id, envelope.traceparent)


def outgoing(body: Body, cause: Cause) -> Outgoing:
    """Return the outbox's row for a message."""
    schema = schema_of(body)
    return Outgoing(
        topic=schema.topic.name,
        user_id=body.user_id,
        type=schema.type,
        source=f"eshop/{schema.service}",
        dataschema=schema.dataschema,
        body=encode(body).decode(),
        correlation_id=cause.correlation_id,
        causation_id=cause.causation_id,
        traceparent=cause.traceparent,
    )
