"""The outbox: messages that are committed with the state they announce."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from operator import attrgetter

from sqlalchemy import BigInteger, Integer, Text, bindparam, cast, exists, func, select, true, update
from sqlalchemy.dialects.postgresql import insert

from eshop.store.bulk import array_parameters, array_table
from eshop.store.database import Session
from eshop.store.outbox_notifier import CHANNEL, OutboxNotifier
from eshop.store.schema import SHARED

_outbox = SHARED.tables["outbox"]


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
_values = attrgetter(*_COLUMNS)  # `astuple` copies deeply
_given = array_table(**dict.fromkeys(_COLUMNS, Text))
#: Under the users' locks and from a sequence without cache: per user, the outbox's order is the commit order.
#: A transaction gets its number before an id: ``Page`` depends on this order.
_APPEND = insert(_outbox).from_select(
    _COLUMNS,
    select(*(_given.c[name] for name in _COLUMNS))
    .where(func.pg_current_xact_id().is_not(None))
    .order_by(_given.c.position),
)
_NOTIFY = select(func.pg_notify(CHANNEL, ""))


class Outbox:
    """Appends messages in the caller's transaction."""

    def __init__(self, session: Session, notifier: OutboxNotifier) -> None:
        self._session = session
        self._notifier = notifier

    async def append(self, messages: Sequence[Outgoing]) -> None:
        """Append the messages in their order, and wake the relay when the transaction commits."""
        if not messages:
            return
        await self._session.run(_APPEND, **array_parameters(_COLUMNS, list(map(_values, messages))))
        if not self._notifier.is_heard_here:
            await self._session.run(_NOTIFY)
        self._session.after_commit(self._notifier.notify)


@dataclass(frozen=True, slots=True)
class Unsent:
    """A message in the outbox that no relay has marked as sent."""

    outbox_id: int
    message_id: str
    created_at: datetime
    message: Outgoing


@dataclass(frozen=True, slots=True)
class Sent:
    """The place of a message on the broker."""

    outbox_id: int
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Page:
    """Unsent messages from an id on, in one snapshot, in outbox order.

    A message outside the snapshot was written by a transaction with an earlier number: from
    ``oldest_running`` on, and below ``next_transaction``.
    """

    from_id: int
    rows: Sequence[Unsent]
    #: The id at which the page was cut off; None if no unsent message follows.
    end: int | None
    oldest_running: int
    next_transaction: int

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Unsent]:
        return iter(self.rows)


@dataclass(frozen=True, slots=True)
class Depth:
    """The number of unsent messages, counted up to a bound, and the age of the oldest."""

    messages: int
    oldest_seconds: float


#: By the missing mark, never by "after the last id": users' transactions commit out of order.
_is_unsent = _outbox.c.sent_at.is_(None)
_snapshot = select(
    *(
        cast(cast(bound(func.pg_current_snapshot()), Text), BigInteger).label(name)
        for name, bound in (
            ("oldest_running", func.pg_snapshot_xmin),
            ("next_transaction", func.pg_snapshot_xmax),
        )
    )
).subquery("snapshot")
_waiting = (
    select(_outbox)
    .where(_is_unsent, _outbox.c.outbox_id >= cast(bindparam("from_id"), BigInteger))
    .order_by(_outbox.c.outbox_id)
    .limit(bindparam("limit"))
    .subquery("waiting")
)
#: A single statement, so that the rows and the transactions are of one snapshot; at least one row.
_UNSENT = select(_snapshot, _waiting).select_from(_snapshot.outerjoin(_waiting, true()))
_counted = (
    select(_outbox.c.created_at)
    .where(_is_unsent)
    .order_by(_outbox.c.outbox_id)
    .limit(bindparam("limit"))
    .subquery("counted")
)
_DEPTH = select(
    func.count().label("messages"),
    func.coalesce(func.extract("epoch", func.clock_timestamp() - func.min(_counted.c.created_at)), 0).label(
        "oldest_seconds"
    ),
).select_from(_counted)
_sent = array_table(outbox_id=BigInteger, sent_partition=Integer, sent_offset=BigInteger)
_lease = SHARED.tables["relay_lease"]
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


async def read_unsent(session: Session, limit: int, from_id: int = 0) -> Page:
    """Return unsent messages: per user, in the order in which their transactions committed."""
    found = await session.run(_UNSENT, limit=limit, from_id=from_id)
    unsent = [
        Unsent(
            row.outbox_id,
            row.message_id,
            row.created_at,
            Outgoing(*(getattr(row, name) for name in _COLUMNS)),
        )
        for row in found
        if row.outbox_id is not None
    ]
    unsent.sort(key=attrgetter("outbox_id"))
    end = unsent[-1].outbox_id + 1 if len(unsent) == limit else None
    return Page(from_id, unsent, end, found[0].oldest_running, found[0].next_transaction)


async def read_depth(session: Session, messages_max: int) -> Depth:
    """Count unsent messages, up to ``messages_max``; the age is by the database's clock."""
    (row,) = await session.run(_DEPTH, limit=messages_max)
    return Depth(row.messages, float(row.oldest_seconds))


async def mark_sent(session: Session, sent: Sequence[Sent], token: int) -> bool:
    """Mark exactly these messages; return False, and mark nothing, if the lease has another token."""
    given = [(row.outbox_id, row.partition, row.offset) for row in sent]
    names = ("outbox_id", "sent_partition", "sent_offset")
    return bool(await session.run(_MARK, **array_parameters(names, given), held=token))
