"""The inbox: ids of messages whose effect is stored, claimed before anything else is read."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from sqlalchemy import BigInteger, Integer, Text, literal_column, select
from sqlalchemy.dialects.postgresql import UUID, insert
from sqlalchemy.sql.expression import ClauseElement

from eshop.store.database import Session
from eshop.store.rows import arrays, rows
from eshop.store.schema import ORDERS

_inbox = ORDERS.tables["inbox"]  # the same table in every service's database


class Position(Protocol):
    """Where a message was read."""

    @property
    def topic(self) -> str: ...  # noqa: D102
    @property
    def partition(self) -> int: ...  # noqa: D102
    @property
    def offset(self) -> int: ...  # noqa: D102


class Incoming(Protocol):
    """A message, as far as the store looks at it."""

    @property
    def message_id(self) -> str: ...  # noqa: D102
    @property
    def origin(self) -> Position: ...  # noqa: D102


M = TypeVar("M", bound=Incoming)

_COLUMNS = ("consumer", "message_id", "topic", "partition", "offset")
_given = rows(consumer=Text, message_id=UUID, topic=Text, partition=Integer, offset=BigInteger)
#: In id order, so that two batches that share messages wait for each other instead of deadlocking.
_CLAIM: ClauseElement = (
    insert(_inbox)
    .from_select(_COLUMNS, select(*(_given.c[name] for name in _COLUMNS)).order_by(_given.c.message_id))
    .on_conflict_do_nothing()
    .returning(literal_column("message_id"))
)


class Inbox:
    """Claims messages for one consumer. A redelivered message is not claimed again."""

    def __init__(self, session: Session, consumer: str) -> None:
        self._session = session
        self._consumer = consumer

    async def claim(self, messages: Sequence[M]) -> list[M]:
        """Claim the messages, and return, in their order, those nobody had claimed before.

        Waits for a transaction that is claiming the same ones.
        """
        claimed = await self._session.run(
            _CLAIM,
            **arrays(
                _COLUMNS,
                [
                    (self._consumer, m.message_id, m.origin.topic, m.origin.partition, m.origin.offset)
                    for m in messages
                ],
            ),
        )
        fresh = {row.message_id for row in claimed}
        first: list[M] = []
        for message in messages:  # twice in one batch is still once
            if message.message_id in fresh:
                fresh.discard(message.message_id)
                first.append(message)
        return first
