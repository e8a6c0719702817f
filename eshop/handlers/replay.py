"""The operators' actions on dead letters: replay the message once, or discard it.

See docs/adr/0014-replaying-dead-letters.md.
"""

import base64
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from eshop.contracts.envelope import UnreadableRecord
from eshop.contracts.messages import Message, Origin, decode
from eshop.store.operators import OperatorAction
from eshop.store.rows import WholeLetter
from eshop.store.unit_of_work import UnitOfWork

PARKED, REPLAYED, DISCARDED = "parked", "replayed", "discarded"

U = TypeVar("U", bound=UnitOfWork)
Handler = Callable[[U, Sequence[Message]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Act:
    """An operator's action on a dead letter. ``reason`` and ``operator`` are recorded."""

    dead_letter_id: str
    reason: str
    operator: str


@dataclass(frozen=True, slots=True)
class Acted:
    """The dead letter after an action; ``done`` if this action changed it."""

    status: str
    done: bool


async def replay(uow: U, act: Act, handler: Handler[U]) -> Acted | None:
    """Handle a parked message like a new one; return None without such a dead letter.

    A concurrent action waits, and finds the letter resolved. The watermarks stay: the offset was passed at
    the parking. Raises the handler's faults and UndecodableMessage: then nothing has changed.
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
    """Discard a parked message; return None without such a dead letter. It stays claimed in the inbox."""
    letter = await uow.dead_letters.get(act.dead_letter_id, locked=True)
    if letter is None:
        return None
    if letter.status != PARKED:
        return Acted(letter.status, done=False)
    return await _resolve(uow, letter, act, "discard", DISCARDED)


async def _resolve(uow: UnitOfWork, letter: WholeLetter, act: Act, action: str, status: str) -> Acted:
    await uow.dead_letters.resolve(letter.dead_letter_id, status)
    await uow.operators.record(
        OperatorAction(
            action, letter.user_id, letter.order_id, act.reason, act.operator, letter.dead_letter_id
        )
    )
    return Acted(status, done=True)


def headers_of(letter: WholeLetter) -> list[tuple[str, bytes]]:
    """Return the message's headers as Kafka had them."""
    return [(name, base64.b64decode(value)) for name, value in letter.headers]


def bytes_of(stored: bytes | memoryview | None) -> bytes | None:
    """Return a key or a value as Kafka had it."""
    return None if stored is None else bytes(stored)


def _message(letter: WholeLetter) -> Message:
    if letter.cause == UnreadableRecord.cause:
        raise UnreadableRecord(letter.error)
    origin = Origin(letter.topic, letter.partition, letter.offset)
    return decode(origin, bytes_of(letter.key), bytes_of(letter.value), headers_of(letter))
