"""Parking of poison messages, so that later messages of the partition go on.

See docs/adr/0013-a-fault-blocks-its-own-partition.md.
"""

import base64
from dataclasses import dataclass
from uuid import NAMESPACE_OID, UUID, uuid5

import orjson

from eshop.contracts.bodies import ParkedMessage
from eshop.contracts.envelope import HEADER_CHARACTERS_MAX
from eshop.contracts.messages import Message, Origin
from eshop.handlers.announce import Cause, outgoing
from eshop.store.dead_letters import DeadLetter
from eshop.store.unit_of_work import UnitOfWork

#: This many messages of a partition, parked within this time of each other and not yet reviewed, are a bug or
#: a bad deployment rather than poison.
BURST_MAX = 5
BURST_SECONDS = 60.0
ERROR_CHARACTERS_MAX = 1_000
#: Characters of the value in the announcement: as JSON, at worst six times as long, it still fits the outbox.
VALUE_CHARACTERS_MAX = 5_000
HEADERS_SHOWN_MAX = 12
HEADER_SHOWN_CHARACTERS_MAX = 128


class TooManyParked(Exception):
    """A burst of messages of one partition was parked already: the partition waits for an operator."""


@dataclass(frozen=True, slots=True)
class Poison:
    """A message as it was read, and why it can't be handled. ``message`` is there if it could be decoded."""

    origin: Origin
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    cause: str
    error: str
    message: Message | None = None

    @property
    def message_id(self) -> str:
        """The id in the headers; without one, an id made of the place and content."""
        for name, value in reversed(self.headers):
            if name == "ce_id":
                try:
                    return str(UUID(value.decode()))
                except ValueError:
                    break
        place = f"{self.origin.topic}/{self.origin.partition}@{self.origin.offset}"
        return str(uuid5(NAMESPACE_OID, f"{place} {base64.b64encode(self.value or b'').decode()}"))


async def park(uow: UnitOfWork, poison: Poison, announcement: type[ParkedMessage]) -> None:
    """Park the message as a dead letter, claim it in the inbox, and announce the dead letter.

    The inbox drops a redelivery. Raises TooManyParked, and parks nothing, after a burst.
    """
    if not await uow.inbox.claim([poison]):
        return
    origin = poison.origin
    if await uow.dead_letters.burst(origin.topic, origin.partition, BURST_SECONDS) >= BURST_MAX:
        raise TooManyParked(
            f"{BURST_MAX} messages of {origin.topic}/{origin.partition} were parked within"
            f" {BURST_SECONDS:g} s: see `eshop deadletters list`, then replay or discard"
        )
    letter = _dead_letter(poison)
    dead_letter_id = await uow.dead_letters.park(letter)
    message_id = letter.message_id
    cause = Cause.of(poison.message) if poison.message else Cause(message_id, message_id)
    await uow.outbox.append([outgoing(_announced(announcement, poison, dead_letter_id), cause)])


def _dead_letter(poison: Poison) -> DeadLetter:
    body = poison.message.body if poison.message else None
    header = {name: _text(value) for name, value in poison.headers}
    pairs = [(_clean(name), base64.b64encode(value).decode()) for name, value in poison.headers]
    return DeadLetter(
        message_id=poison.message_id,
        topic=poison.origin.topic,
        partition=poison.origin.partition,
        offset=poison.origin.offset,
        key=poison.key,
        value=poison.value,
        headers_json=orjson.dumps(pairs).decode(),
        type=header.get("ce_type"),
        user_id=_user_id(poison),
        order_id=getattr(body, "order_id", None),
        cause=poison.cause,
        error=_clean(poison.error)[:ERROR_CHARACTERS_MAX],
    )


def _announced(announcement: type[ParkedMessage], poison: Poison, dead_letter_id: str) -> ParkedMessage:
    return announcement(
        user_id=_user_id(poison) or "unknown",
        dead_letter_id=dead_letter_id,
        message_id=poison.message_id,
        topic=poison.origin.topic,
        partition=poison.origin.partition,
        offset=poison.origin.offset,
        cause=poison.cause,
        error=_clean(poison.error)[:ERROR_CHARACTERS_MAX],
        headers={
            _clean(name)[:HEADER_SHOWN_CHARACTERS_MAX]: _text(value, HEADER_SHOWN_CHARACTERS_MAX)
            for name, value in poison.headers[:HEADERS_SHOWN_MAX]
        },
        value=None if poison.value is None else _text(poison.value, VALUE_CHARACTERS_MAX),
    )


def _user_id(poison: Poison) -> str | None:
    return _text(poison.key, 128) or None if poison.key else None


def _text(value: bytes, characters_max: int = HEADER_CHARACTERS_MAX) -> str:
    """Return bytes as text that Postgres can hold."""
    return _clean(value.decode(errors="replace"))[:characters_max]


def _clean(text: str) -> str:
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}")
