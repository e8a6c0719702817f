"""The inbox: ids of messages whose effect is stored, claimed before anything else is read."""

from collections import Counter
from collections.abc import Sequence
from typing import Protocol, TypeVar

from sqlalchemy import (
    BigInteger,
    Boolean,
    Integer,
    Text,
    bindparam,
    cast,
    delete,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import UUID, insert
from sqlalchemy.sql.expression import ClauseElement

from eshop.store.bulk import array_parameters, array_table
from eshop.store.database import Session
from eshop.store.schema import SHARED

_inbox = SHARED.tables["inbox"]


class Position(Protocol):
    """Where a message was read."""

    @property
    def topic(self) -> str: ...  # noqa: D102
    @property
    def partition(self) -> int: ...  # noqa: D102
    @property
    def offset(self) -> int: ...  # noqa: D102


class Incoming(Protocol):
    """The fields of a message that the store reads."""

    @property
    def message_id(self) -> str: ...  # noqa: D102
    @property
    def origin(self) -> Position: ...  # noqa: D102


M = TypeVar("M", bound=Incoming)

_COLUMNS = ("consumer", "message_id", "topic", "partition", "offset", "redelivered")
_given = array_table(
    consumer=Text, message_id=UUID, topic=Text, partition=Integer, offset=BigInteger, redelivered=Integer
)
_insert = insert(_inbox).from_select(
    # In id order: two batches with common messages wait for each other instead of deadlocking.
    _COLUMNS,
    select(*(_given.c[name] for name in _COLUMNS)).order_by(_given.c.message_id),
)
_CLAIM: ClauseElement = _insert.on_conflict_do_update(
    index_elements=[_inbox.c.consumer, _inbox.c.message_id],
    set_={
        "redelivered": _inbox.c.redelivered + _insert.excluded.redelivered + 1,
        "redelivered_at": func.clock_timestamp(),
    },
).returning(
    literal_column("inbox.message_id").label("message_id"),
    literal_column("old.message_id IS NULL", Boolean).label("is_new"),
)
_RELEASE = delete(_inbox).where(
    _inbox.c.consumer == cast(bindparam("of_consumer"), Text),
    _inbox.c.message_id == cast(bindparam("released_id"), UUID),
)


class Inbox:
    """Claims messages for one consumer. A redelivered message is not claimed again."""

    def __init__(self, session: Session, consumer: str) -> None:
        self._session = session
        self._consumer = consumer

    async def claim(self, messages: Sequence[M]) -> list[M]:
        """Claim the messages, and return, in order, the messages that nobody had claimed.

        A message that was claimed before is counted as redelivered. Waits for a concurrent transaction that
        claims the same messages.
        """
        first: dict[str, M] = {}
        times: Counter[str] = Counter()
        for message in messages:  # twice in one batch is still once
            first.setdefault(message.message_id, message)
            times[message.message_id] += 1
        claimed = await self._session.run(
            _CLAIM,
            **array_parameters(
                _COLUMNS,
                [
                    (self._consumer, m.message_id, m.origin.topic, m.origin.partition, m.origin.offset, n - 1)
                    for m, n in zip(first.values(), times.values(), strict=True)
                ],
            ),
        )
        fresh = {row.message_id for row in claimed if row.is_new}
        return [message for message_id, message in first.items() if message_id in fresh]

    async def release(self, message_id: str) -> None:
        """Delete the inbox row, so that a replay can claim the message in the transaction that handles it."""
        await self._session.run(_RELEASE, of_consumer=self._consumer, released_id=message_id)
