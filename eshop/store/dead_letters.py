"""Dead letters: messages that a service could never handle, kept whole until an operator has looked."""

from dataclasses import astuple, dataclass, fields

from sqlalchemy import BigInteger, Integer, LargeBinary, Text, bindparam, cast, func, insert, select, update
from sqlalchemy.dialects.postgresql import JSONB, UUID

from eshop.store.database import Session
from eshop.store.schema import ORDERS

_letters = ORDERS.tables["dead_letters"]  # the same table in every service's database


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message as it was read, and why nobody can handle it.

    ``headers_json`` is an array of pairs of name and base64. ``type``, ``user_id`` and ``order_id`` are what
    could be read of it.
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
_TAKE = (
    select(_letters).where(_letters.c.dead_letter_id == cast(bindparam("wanted_id"), UUID)).with_for_update()
)
_RESOLVE = (
    update(_letters)
    .where(_letters.c.dead_letter_id == cast(bindparam("wanted_id"), UUID))
    .values(status=cast(bindparam("new_status"), Text), resolved_at=func.clock_timestamp())
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
        """Return how many still parked messages of the partition lie that close to the newest of them."""
        (row,) = await self._session.run(
            _BURST, of_consumer=self._consumer, of_topic=topic, of_partition=partition, seconds=seconds
        )
        return int(row.count)
