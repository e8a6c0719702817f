"""From the domain's words to the wire's: the only place where outgoing messages are made."""

from dataclasses import dataclass

from eshop.contracts.bodies import Body
from eshop.contracts.messages import Message, encode, schema_of
from eshop.store.outbox import Outgoing


@dataclass(frozen=True, slots=True)
class Cause:
    """What a message follows from: a request, or another message."""

    correlation_id: str
    causation_id: str
    traceparent: str = ""

    @classmethod
    def of(cls, message: Message) -> "Cause":
        """Return the cause for what follows from handling the message."""
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
