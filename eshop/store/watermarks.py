"""Watermarks: per partition, the next offset whose effect is stored. They detect gaps and never filter."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import BigInteger, Integer, Text, func, literal_column, select
from sqlalchemy.dialects.postgresql import insert

from eshop.store.database import Session
from eshop.store.faults import WatermarkGap
from eshop.store.inbox import Incoming
from eshop.store.rows import arrays, rows
from eshop.store.schema import ORDERS

_watermarks = ORDERS.tables["watermarks"]  # the same table in every service's database

_COLUMNS = ("consumer", "topic", "partition", "next_offset")
_KEY = (_watermarks.c.consumer, _watermarks.c.topic, _watermarks.c.partition)
_given = rows(consumer=Text, topic=Text, partition=Integer, next_offset=BigInteger)
_insert = insert(_watermarks).from_select(
    _COLUMNS,
    select(*(_given.c[name] for name in _COLUMNS)).order_by(
        _given.c.consumer, _given.c.topic, _given.c.partition
    ),
)
_ADVANCE = _insert.on_conflict_do_update(
    index_elements=list(_KEY),
    set_={"next_offset": func.greatest(_watermarks.c.next_offset, _insert.excluded.next_offset)},
).returning(
    _watermarks.c.topic,
    _watermarks.c.partition,
    # What was stored before, of the row that this very statement has locked; nothing at the first time.
    literal_column("coalesce(old.next_offset, 0)", BigInteger).label("before"),
)


@dataclass(slots=True)
class _Span:
    first: int
    end: int


class Watermarks:
    """The watermarks of one consumer."""

    def __init__(self, session: Session, consumer: str) -> None:
        self._session = session
        self._consumer = consumer

    async def advance(self, messages: Sequence[Incoming]) -> None:
        """Store that the messages' effect is in this transaction.

        Raises WatermarkGap, and so rolls the transaction back, where offsets were passed over before the
        first or between two messages. Offsets that come again are nothing special: the inbox has them.
        """
        spans = _spans(messages)
        ends = [(self._consumer, *key, span.end) for key, span in spans.items()]
        for row in await self._session.run(_ADVANCE, **arrays(_COLUMNS, ends)):
            first = spans[row.topic, row.partition].first
            if first > row.before:
                raise WatermarkGap(_gap(row.topic, row.partition, row.before, first))


def _spans(messages: Sequence[Incoming]) -> dict[tuple[str, int], _Span]:
    spans: dict[tuple[str, int], _Span] = {}
    for message in messages:
        origin = message.origin
        span = spans.setdefault((origin.topic, origin.partition), _Span(origin.offset, origin.offset))
        if origin.offset > span.end:
            raise WatermarkGap(_gap(origin.topic, origin.partition, span.end, origin.offset))
        span.end = max(span.end, origin.offset + 1)
    return spans


def _gap(topic: str, partition: int, expected: int, found: int) -> str:
    return f"{topic}/{partition}: offsets {expected} to {found - 1} were passed over"
