"""The outbox: messages committed with the state that they announce."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from datetime import datetime

from sqlalchemy import BigInteger, Integer, Text, bindparam, cast, exists, func, select, update
from sqlalchemy.dialects.postgresql import insert

from eshop.store.database import Session
from eshop.store.doorbell import CHANNEL, Doorbell
from eshop.store.rows import arrays, rows
from eshop.store.schema import ORDERS

_outbox = ORDERS.tables["outbox"]  # the same table in every service's database


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to be published. Its id and its time are given by the database."""

    topic: str
    user_id: str
    type: str
    source: str
    dataschema: str
    body: str
    correlation_id: str
    causation_id: str
    traceparent: str


_COLUMNS = tuple(field.name for field in fields(Outgoing))
_given = rows(**dict.fromkeys(_COLUMNS, Text))
#: Under the users' locks and from a sequence without cache: per user, the outbox's order is the commit order.
_APPEND = insert(_outbox).from_select(
    _COLUMNS, select(*(_given.c[name] for name in _COLUMNS)).order_by(_given.c.position)
)
_NOTIFY = select(func.pg_notify(CHANNEL, ""))


class Outbox:
    """Appends messages in the caller's transaction."""

    def __init__(self, session: Session, doorbell: Doorbell) -> None:
        self._session = session
        self._doorbell = doorbell

    async def append(self, messages: Sequence[Outgoing]) -> None:
        """Append the messages in their order, and wake the relay when the transaction commits."""
        if not messages:
            return
        await self._session.run(_APPEND, **arrays(_COLUMNS, [astuple(message) for message in messages]))
        if not self._doorbell.answered_here:
            await self._session.run(_NOTIFY)
        self._session.after_commit(self._doorbell.ring)


@dataclass(frozen=True, slots=True)
class Unsent:
    """A message in the outbox that no relay has marked as sent."""

    outbox_id: int
    message_id: str
    created_at: datetime
    message: Outgoing


@dataclass(frozen=True, slots=True)
class Sent:
    """Where the broker stored a message."""

    outbox_id: int
    partition: int
    offset: int


#: By what is unsent, never by "after the last one": users' transactions commit out of order.
_UNSENT = (
    select(_outbox).where(_outbox.c.sent_at.is_(None)).order_by(_outbox.c.outbox_id).limit(bindparam("limit"))
)
_sent = rows(outbox_id=BigInteger, sent_partition=Integer, sent_offset=BigInteger)
_lease = ORDERS.tables["relay_lease"]
_MARK = (
    update(_outbox)
    .where(
        _outbox.c.outbox_id == _sent.c.outbox_id,
        exists().where(_lease.c.token == cast(bindparam("held"), BigInteger)),
    )
    .values(
        sent_at=func.clock_timestamp(),
        sent_partition=_sent.c.sent_partition,
        sent_offset=_sent.c.sent_offset,
    )
    .returning(_outbox.c.outbox_id)
)


async def read_unsent(session: Session, limit: int) -> list[Unsent]:
    """Return unsent messages in outbox order: per user, the order in which their transactions committed."""
    return [
        Unsent(
            row.outbox_id,
            row.message_id,
            row.created_at,
            Outgoing(*(getattr(row, name) for name in _COLUMNS)),
        )
        for row in await session.run(_UNSENT, limit=limit)
    ]


async def mark_sent(session: Session, sent: Sequence[Sent], token: int) -> bool:
    """Mark exactly these messages; False, and nothing is marked, where the lease's token is another one."""
    given = [(row.outbox_id, row.partition, row.offset) for row in sent]
    names = ("outbox_id", "sent_partition", "sent_offset")
    return bool(await session.run(_MARK, **arrays(names, given), held=token))
