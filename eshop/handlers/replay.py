"""What operators do with dead letters: handle the message after all, once, or give it up.

See docs/adr/0014-replaying-dead-letters.md.
"""

import base64
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from eshop.contracts.envelope import UnreadableRecord
from eshop.contracts.messages import Message, Origin, decode
from eshop.store.operators import OperatorAction
from eshop.store.unit_of_work import UnitOfWork

PARKED, REPLAYED, DISCARDED = "parked", "replayed", "discarded"

U = TypeVar("U", bound=UnitOfWork)
Handler = Callable[[U, Sequence[Message]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Act:
    """What an operator wants with which dead letter. ``reason`` and ``operator`` are recorded."""

    dead_letter_id: str
    reason: str
    operator: str


@dataclass(frozen=True, slots=True)
class Acted:
    """What the dead letter is now; ``done`` where this very act made it so."""

    status: str
    done: bool


async def replay(uow: U, act: Act, handler: Handler[U]) -> Acted | None:
    """Handle a parked message as if it had come just now; None where there is no such dead letter.

    Whoever asks at the same time waits, and finds it done. The watermarks stay: its offset was passed when
    it was parked. Raises what the handler raises, UndecodableMessage among it: then nothing has changed.
    """
    letter = await uow.dead_letters.get(act.dead_letter_id, locked=True)
    if letter is None:
        return None
    if letter.status != PARKED:
        return Acted(letter.status, done=False)
    message = _message(letter)
    await uow.inbox.release(letter.message_id)
    await handler(uow, [message])
    return await _resolve(uow, letter, act, "replay", REPLAYED)


async def discard(uow: UnitOfWork, act: Act) -> Acted | None:
    """Give a parked message up; None where there is no such dead letter. It stays claimed in the inbox."""
    letter = await uow.dead_letters.get(act.dead_letter_id, locked=True)
    if letter is None:
        return None
    if letter.status != PARKED:
        return Acted(letter.status, done=False)
    return await _resolve(uow, letter, act, "discard", DISCARDED)


async def _resolve(uow: UnitOfWork, letter: Any, act: Act, action: str, status: str) -> Acted:
    await uow.dead_letters.resolve(letter.dead_letter_id, status)
    await uow.operators.record(
        OperatorAction(
            action, letter.user_id, letter.order_id, act.reason, act.operator, letter.dead_letter_id
        )
    )
    return Acted(status, done=True)


def headers_of(letter: Any) -> list[tuple[str, bytes]]:
    """Return the message's headers as Kafka had them."""
    return [(name, base64.b64decode(value)) for name, value in letter.headers]


def bytes_of(stored: Any) -> bytes | None:
    """Return a key or a value as Kafka had it."""
    return None if stored is None else bytes(stored)


def _message(letter: Any) -> Message:
    if letter.cause == UnreadableRecord.cause:
        raise UnreadableRecord(letter.error)
    origin = Origin(letter.topic, letter.partition, letter.offset)
    return decode(origin, bytes_of(letter.key), bytes_of(letter.value), headers_of(letter))
