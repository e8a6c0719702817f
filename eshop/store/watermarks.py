"""Watermarks: per partition, the next offset whose effect is stored. They detect gaps and never filter."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import BigInteger, Integer, Text, bindparam, cast, func, literal_column, select
from sqlalchemy.dialects.postgresql import insert

from eshop.store.bulk import array_parameters, array_table
from eshop.store.database import Session
from eshop.store.faults import WatermarkGap
from eshop.store.inbox import Position
from eshop.store.schema import SHARED

_watermarks = SHARED.tables["watermarks"]

_COLUMNS = ("consumer", "topic", "partition", "next_offset")
_KEY = (_watermarks.c.consumer, _watermarks.c.topic, _watermarks.c.partition)
_given = array_table(consumer=Text, topic=Text, partition=Integer, next_offset=BigInteger)
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
    # The stored value before, of the row that this statement has locked; no row at the first time.
    literal_column("coalesce(old.next_offset, 0)", BigInteger).label("before"),
)


_READ = select(_watermarks.c.partition, _watermarks.c.next_offset).where(
    _watermarks.c.consumer == cast(bindparam("of_consumer"), Text),
    _watermarks.c.topic == cast(bindparam("of_topic"), Text),
)
_RESET = _insert.on_conflict_do_update(
    index_elements=list(_KEY), set_={"next_offset": _insert.excluded.next_offset}
)
#: Topic, partition, the first offset without a message, and the next offset with a message.
Hole = tuple[str, int, int, int]


@dataclass(slots=True)
class _Span:
    first: int
    end: int


class Watermarks:
    """The watermarks of one consumer."""

    def __init__(self, session: Session, consumer: str) -> None:
        self._session = session
        self._consumer = consumer

    async def advance(self, positions: Iterable[Position], holes: Container[Hole] = ()) -> None:
        """Store that the effect of the messages at these positions is in this transaction.

        Raises WatermarkGap, which rolls the transaction back, if offsets were passed over before the first or
        between two messages, unless ``holes`` says that the log has no message there. Redelivered offsets are
        harmless: the inbox drops them.
        """
        spans = _spans(positions, holes)
        ends = [(self._consumer, *key, span.end) for key, span in spans.items()]
        for row in await self._session.run(_ADVANCE, **array_parameters(_COLUMNS, ends)):
            first = spans[row.topic, row.partition].first
            if first > row.before and (row.topic, row.partition, row.before, first) not in holes:
                raise WatermarkGap(row.topic, row.partition, row.before, first)

    async def read(self, topic: str) -> dict[int, int]:
        """Return the next offset of each partition of the topic that has a watermark."""
        return {
            row.partition: row.next_offset
            for row in await self._session.run(_READ, of_consumer=self._consumer, of_topic=topic)
        }

    async def reset(self, topic: str, offsets: Mapping[int, int]) -> None:
        """Set the partitions' watermarks, also backwards: the topic was replaced by another log."""
        given = [(self._consumer, topic, *pair) for pair in offsets.items()]
        await self._session.run(_RESET, **array_parameters(_COLUMNS, given))


def _spans(positions: Iterable[Position], holes: Container[Hole]) -> dict[tuple[str, int], _Span]:
    spans: dict[tuple[str, int], _Span] = {}
    for at in positions:
        span = spans.setdefault((at.topic, at.partition), _Span(at.offset, at.offset))
        if at.offset > span.end and (at.topic, at.partition, span.end, at.offset) not in holes:
            raise WatermarkGap(at.topic, at.partition, span.end, at.offset)
        span.end = max(span.end, at.offset + 1)
    return spans
