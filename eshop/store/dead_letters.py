"""Dead letters: poison messages, kept whole until an operator has reviewed them."""

from dataclasses import astuple, dataclass, fields
from typing import Any

from sqlalchemy import (
    BigInteger,
    Integer,
    LargeBinary,
    Text,
    bindparam,
    cast,
    func,
    insert,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

from eshop.store.database import Session
from eshop.store.rows import HeldRow, LetterGroup, LetterRow, WholeLetter
from eshop.store.schema import SHARED

_letters = SHARED.tables["dead_letters"]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message as it was read, and the reason why it can't be handled.

    ``headers_json`` is an array of pairs of name and base64. ``type``, ``user_id`` and ``order_id`` are there
    if they could be read.
    """

    message_id: str
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers_json: str
    type: str | None
    user_id: str | None
    order_id: str | None
    cause: str
    error: str


_TYPES = {
    "message_id": UUID,
    "topic": Text,
    "partition": Integer,
    "offset": BigInteger,
    "key": LargeBinary,
    "value": LargeBinary,
    "headers": JSONB,
    "type": Text,
    "user_id": Text,
    "order_id": UUID,
    "cause": Text,
    "error": Text,
}
_PARK = (
    insert(_letters)
    .from_select(
        ["consumer", *_TYPES],
        select(
            cast(bindparam("of_consumer"), Text),
            *(cast(bindparam(f"the_{name}"), type_) for name, type_ in _TYPES.items()),
        ),
        include_defaults=False,
    )
    .returning(_letters.c.dead_letter_id)
)
_here = (
    _letters.c.consumer == cast(bindparam("of_consumer"), Text),
    _letters.c.topic == cast(bindparam("of_topic"), Text),
    _letters.c.partition == cast(bindparam("of_partition"), Integer),
    _letters.c.status == "parked",
)
_seconds = func.make_interval(0, 0, 0, 0, 0, 0, bindparam("seconds"))
_newest = select(func.max(_letters.c.parked_at)).where(*_here).scalar_subquery()
_BURST = (
    select(func.count().label("count"))
    .select_from(_letters)
    .where(*_here, _letters.c.parked_at > _newest - _seconds)
)
_wanted = (
    _letters.c.consumer == cast(bindparam("of_consumer"), Text),
    _letters.c.dead_letter_id == cast(bindparam("wanted_id"), UUID),
)
_GET = select(_letters).where(*_wanted)
_LOCK = _GET.with_for_update()
_RESOLVE = (
    update(_letters)
    .where(*_wanted)
    .values(status=cast(bindparam("new_status"), Text), resolved_at=func.clock_timestamp())
)


def _only(name: str) -> Any:
    """Return a condition on a column; the empty text matches every row."""
    given = cast(bindparam(f"of_{name}"), Text)
    return or_(given == "", _letters.c[name] == given)


_chosen = (_letters.c.consumer == cast(bindparam("of_consumer"), Text), _only("cause"), _only("status"))
_GROUPS = (
    select(
        _letters.c.cause,
        _letters.c.status,
        func.count().label("letters"),
        func.min(_letters.c.parked_at).label("first_parked_at"),
        func.max(_letters.c.parked_at).label("last_parked_at"),
    )
    .where(*_chosen)
    .group_by(_letters.c.cause, _letters.c.status)
    .order_by(text("letters DESC"), _letters.c.cause, _letters.c.status)
)
#: The columns of a page: all but the long ones.
_SHORT = tuple(column for column in _letters.c if column.name not in ("key", "value", "headers"))
#: Ids are made of the time: by id is oldest first.
_PAGE = (
    select(*_SHORT)
    .where(*_chosen, _letters.c.dead_letter_id > cast(bindparam("after_id"), UUID))
    .order_by(_letters.c.dead_letter_id)
    .limit(bindparam("limit"))
)
_parked = (
    select(
        _letters.c.topic,
        _letters.c.partition,
        _letters.c.parked_at,
        func.max(_letters.c.parked_at)
        .over(partition_by=(_letters.c.topic, _letters.c.partition))
        .label("newest"),
    )
    .where(_letters.c.consumer == cast(bindparam("of_consumer"), Text), _letters.c.status == "parked")
    .subquery()
)
_HELD = (
    select(_parked.c.topic, _parked.c.partition, func.count().label("parked"))
    .where(_parked.c.parked_at > _parked.c.newest - _seconds)
    .group_by(_parked.c.topic, _parked.c.partition)
    .having(func.count() >= bindparam("at_least"))
    .order_by(_parked.c.topic, _parked.c.partition)
)
_COLUMNS = tuple(f"the_{name}" for name in _TYPES)
assert len(_COLUMNS) == len(fields(DeadLetter)), "a column for each field, in the same order"


class DeadLetters:
    """The dead letters of one consumer."""

    def __init__(self, session: Session, consumer: str) -> None:
        self._session = session
        self._consumer = consumer

    async def park(self, letter: DeadLetter) -> str:
        """Keep the message, and return its dead letter's id."""
        given = dict(zip(_COLUMNS, astuple(letter), strict=True))
        (row,) = await self._session.run(_PARK, of_consumer=self._consumer, **given)
        return str(row.dead_letter_id)

    async def burst(self, topic: str, partition: int, seconds: float) -> int:
        """Return the number of parked messages of the partition that lie that close to the newest."""
        (row,) = await self._session.run(
            _BURST, of_consumer=self._consumer, of_topic=topic, of_partition=partition, seconds=seconds
        )
        return int(row.count)

    async def held(self, at_least: int, seconds: float) -> list[HeldRow]:
        """Return topic, partition and count of the partitions with a burst of that size."""
        return await self._session.run(_HELD, of_consumer=self._consumer, at_least=at_least, seconds=seconds)

    async def groups(self, cause: str, status: str) -> list[LetterGroup]:
        """Count dead letters by cause and status, with the time span; an empty text is no filter."""
        return await self._session.run(_GROUPS, of_consumer=self._consumer, of_cause=cause, of_status=status)

    async def page(self, cause: str, status: str, after_id: str, limit: int) -> list[LetterRow]:
        """Return dead letters after an id, oldest first, without their content; filtered as in ``groups``."""
        return await self._session.run(
            _PAGE,
            of_consumer=self._consumer,
            of_cause=cause,
            of_status=status,
            after_id=after_id,
            limit=limit,
        )

    async def get(self, dead_letter_id: str, *, locked: bool = False) -> WholeLetter | None:
        """Return a dead letter, locked or not; None if there is none."""
        found: list[WholeLetter] = await self._session.run(
            _LOCK if locked else _GET, of_consumer=self._consumer, wanted_id=dead_letter_id
        )
        return found[0] if found else None

    async def resolve(self, dead_letter_id: str, status: str) -> None:
        """Record that a dead letter, which is locked, was replayed or discarded."""
        await self._session.run(
            _RESOLVE, of_consumer=self._consumer, wanted_id=dead_letter_id, new_status=status
        )
