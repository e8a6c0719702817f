"""Between bytes on a topic and models: the schema of each body, and both directions."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from pydantic import ValidationError

from eshop.contracts.bodies import Body, ParkedMessage, UnknownEvent
from eshop.contracts.envelope import Envelope, UndecodableMessage, UnreadableRecord
from eshop.contracts.services import SERVICES, Service
from eshop.contracts.topics import Topic
from eshop.contracts.unreadable import Unreadable


@dataclass(frozen=True, slots=True)
class Schema:
    """The topic and the name of a body on the wire."""

    body: type[Body]
    topic: Topic
    service: str
    version: int = 1

    @property
    def type(self) -> str:
        """The envelope's type, the same in every version."""
        return f"eshop.{self.service}.{self.body.__name__}"

    @property
    def dataschema(self) -> str:
        """The envelope's schema, which contains the version."""
        return f"eshop/{self.service}/v{self.version}/{self.body.__name__}"


def _schemas() -> tuple[Schema, ...]:
    """Return the schema of every message: a class of that name in the service's module of bodies."""
    return tuple(
        Schema(getattr(import_module(f"eshop.contracts.{service.name}_v1"), name), topic, service.name)
        for service in SERVICES.values()
        for topic in (service.events, service.dead_letters)
        for name in topic.messages
    )


SCHEMAS = _schemas()
_BY_BODY = {schema.body: schema for schema in SCHEMAS}
_BODIES = {(schema.type, schema.dataschema): schema.body for schema in SCHEMAS}
_TYPES = frozenset(schema.type for schema in SCHEMAS)
_DATASCHEMA = re.compile(r"eshop/([a-z]+)/v[1-9][0-9]*/([A-Za-z][A-Za-z0-9]*)")


@dataclass(frozen=True, slots=True)
class Origin:
    """The place of a message. ``topic`` is the broker's name for the topic."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it was read: envelope, body, origin. Its partition key is ``user_id``."""

    envelope: Envelope
    body: Body
    origin: Origin

    @property
    def message_id(self) -> str:
        """The id from the outbox: the same in every redelivery and repetition."""
        return self.envelope.message_id

    @property
    def user_id(self) -> str:
        """The user of the message."""
        return self.body.user_id


def schema_of(body: Body) -> Schema:
    """Return how a body is named on the wire."""
    return _BY_BODY[type(body)]


def parked_by(service: Service) -> type[ParkedMessage]:
    """Return the body by which a service announces its dead letters."""
    (schema,) = (schema for schema in SCHEMAS if schema.topic is service.dead_letters)
    assert issubclass(schema.body, ParkedMessage)
    return schema.body


def encode(body: Body) -> bytes:
    """Return the body as JSON."""
    return body.model_dump_json(exclude_none=True).encode()


def decode(
    origin: Origin, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]] | None
) -> Message:
    """Read a message; raise UndecodableMessage with the cause, if that can never succeed.

    A message of a type that only newer versions know has an UnknownEvent as its body. A known type in an
    unknown version can't be read: its reader would miss the content.
    """
    if isinstance(value, Unreadable):
        raise UnreadableRecord(value.error)
    envelope = Envelope.from_headers(headers or ())
    body_type = _body_type(envelope)
    if value is None:
        raise UndecodableMessage("the value is null")
    try:
        body = body_type.model_validate_json(value)
    except ValidationError as error:
        raise UndecodableMessage(f"the body does not fit {envelope.dataschema}: {error}") from error
    if key != body.user_id.encode():
        raise UndecodableMessage("the key is not the body's user id")
    return Message(envelope, body, origin)


def _body_type(envelope: Envelope) -> type[Body]:
    if (body := _BODIES.get((envelope.type, envelope.dataschema))) is not None:
        return body
    named = _DATASCHEMA.fullmatch(envelope.dataschema)
    if named is None or envelope.type != f"eshop.{named[1]}.{named[2]}":
        raise UndecodableMessage(f"type {envelope.type!r} does not go with schema {envelope.dataschema!r}")
    if envelope.type in _TYPES:
        raise UndecodableMessage(f"unknown schema {envelope.dataschema!r}")
    return UnknownEvent
