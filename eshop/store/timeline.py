"""A service's part of an order's timeline: for people, without an index of its own.

The outbox has no index on orders or users. But message ids begin with their time of creation, and the order's
own rows tell the times at which messages were sent: so the outbox is read in a few short ranges of ids.
"""

import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ARRAY, Text, any_, bindparam, case, cast, func, or_, select, true
from sqlalchemy.dialects.postgresql import JSONB, UUID

from eshop.store.bulk import array_parameters, array_table
from eshop.store.database import Session
from eshop.store.retention import KEPT_DAYS
from eshop.store.rows import (
    ActionRow,
    InboxRow,
    KeptSince,
    OrderChange,
    OrderTerms,
    OutboxRow,
    ParkedRow,
    PaymentRow,
    PostingRow,
)
from eshop.store.schema import SHARED
from eshop.store.schema.orders import ORDERS
from eshop.store.schema.payments import PAYMENTS

#: How long before an order's change its causes are looked for.
LOOK_BACK = timedelta(seconds=60)
#: The longest transaction. Its rows have the time of its begin, but ids have the time of their creation.
TRANSACTION_MAX = timedelta(seconds=10)
_outbox = SHARED.tables["outbox"]
_inbox = SHARED.tables["inbox"]
_letters = SHARED.tables["dead_letters"]
_actions = SHARED.tables["operator_actions"]
_orders = ORDERS.tables["orders"]
_history = ORDERS.tables["order_history"]
_payments = PAYMENTS.tables["payments"]
_transfers = PAYMENTS.tables["transfers"]
_legs = PAYMENTS.tables["legs"]
_wallet_history = PAYMENTS.tables["wallet_history"]

Span = tuple[datetime, datetime]


@dataclass(slots=True)
class TimelinePart:
    """Rows of the tables, each kind in order of time. ``user_id`` is there if the service has the order."""

    order: OrderTerms | None = None
    user_id: str | None = None
    changes: list[OrderChange] = field(default_factory=list)
    decisions: list[PaymentRow] = field(default_factory=list)
    postings: list[PostingRow] = field(default_factory=list)
    outbox_rows: list[OutboxRow] = field(default_factory=list)
    inbox_rows: list[InboxRow] = field(default_factory=list)
    letters: list[ParkedRow] = field(default_factory=list)
    actions: list[ActionRow] = field(default_factory=list)


_order_id = cast(bindparam("of_order"), UUID)
_ids = cast(bindparam("message_ids"), ARRAY(UUID))
_consumer = cast(bindparam("of_consumer"), Text)

_ORDER = select(_orders).where(_orders.c.order_id == _order_id)
_CHANGES = select(_history).where(_history.c.order_id == _order_id).order_by(_history.c.version)
_DECISIONS = select(_payments).where(_payments.c.order_id == _order_id)
_POSTINGS = (
    select(
        _transfers.c.transfer_id,
        _transfers.c.kind,
        _transfers.c.currency,
        _transfers.c.created_at,
        _legs.c.account,
        _legs.c.amount_minor,
        case((_legs.c.user_id.is_not(None), _wallet_history.c.balance_minor)).label("balance_minor"),
        case((_legs.c.user_id.is_not(None), _wallet_history.c.feed_number)).label("feed_number"),
    )
    .join(_legs, _legs.c.transfer_id == _transfers.c.transfer_id)
    .outerjoin(_wallet_history, _wallet_history.c.transfer_id == _transfers.c.transfer_id)
    .where(_transfers.c.order_id == _order_id)
    .order_by(_transfers.c.created_at, _transfers.c.transfer_id, _legs.c.leg)
)
_RECEIPTS = (
    select(_inbox)
    .where(_inbox.c.consumer == _consumer, _inbox.c.message_id == any_(_ids))
    .order_by(_inbox.c.received_at)
)
_LETTERS = (
    select(
        _letters.c.dead_letter_id,
        _letters.c.message_id,
        _letters.c.cause,
        _letters.c.status,
        _letters.c.parked_at,
    )
    .where(
        _letters.c.consumer == _consumer,
        or_(_letters.c.order_id == _order_id, _letters.c.message_id == any_(_ids)),
    )
    .order_by(_letters.c.dead_letter_id)
)
_ACTIONS = (
    select(_actions)
    .where(
        or_(
            _actions.c.order_id == _order_id,
            _actions.c.dead_letter_id == any_(cast(bindparam("dead_letter_ids"), ARRAY(UUID))),
        )
    )
    .order_by(_actions.c.at)
)
_span = array_table(first_id=UUID, end_id=UUID)
_in_span = (
    select(_outbox)
    .where(
        _outbox.c.message_id >= _span.c.first_id,
        _outbox.c.message_id < _span.c.end_id,
        _outbox.c.user_id == bindparam("of_user"),
        cast(_outbox.c.body, JSONB)["order_id"].astext == cast(bindparam("of_order"), Text),
    )
    # One range of the index for each span. Without this the planner reads the whole table once.
    .offset(0)
    .lateral("found")
)
_SENT_WITHIN = select(_in_span).select_from(_span.join(_in_span, true()))
_SENT_AS = select(_outbox).where(_outbox.c.message_id == any_(_ids))
_KEPT_SINCE = select(
    *(
        (func.now() - func.make_interval(0, 0, 0, KEPT_DAYS[table])).label(table)
        for table in ("outbox", "inbox")
    )
)


class TimelineParts(ABC):
    """Reads one service's parts of timelines."""

    def __init__(self, session: Session, consumer: str) -> None:
        self._session = session
        self._consumer = consumer

    @abstractmethod
    async def read(self, order_id: str, message_ids: Sequence[str]) -> TimelinePart:
        """Return the service's rows about an order, and about these messages, received or sent."""

    async def kept_since(self) -> KeptSince:
        """Return the times before which rows of the outbox and of the inbox are deleted."""
        (row,) = await self._session.run(_KEPT_SINCE)
        kept: KeptSince = row
        return kept

    async def _read_messages(self, part: TimelinePart, order_id: str, message_ids: Sequence[str]) -> None:
        asked: dict[str, Any] = {"of_consumer": self._consumer, "message_ids": list(message_ids)}
        part.inbox_rows = await self._session.run(_RECEIPTS, **asked)
        part.letters = await self._session.run(_LETTERS, of_order=order_id, **asked)
        letter_ids = [row.dead_letter_id for row in part.letters]
        part.actions = await self._session.run(_ACTIONS, of_order=order_id, dead_letter_ids=letter_ids)

    async def _read_outbox_rows(
        self, part: TimelinePart, order_id: str, message_ids: Sequence[str], spans: Iterable[Span]
    ) -> None:
        within = await self._session.run(
            _SENT_WITHIN,
            of_order=order_id,
            of_user=part.user_id,
            **array_parameters(("first_id", "end_id"), [_ids_of(span) for span in _apart(spans)]),
        )
        named = await self._session.run(_SENT_AS, message_ids=list(message_ids))
        by_id = {row.outbox_id: row for row in [*within, *named]}
        part.outbox_rows = [by_id[outbox_id] for outbox_id in sorted(by_id)]


class OrderTimeline(TimelineParts):
    """The way of orders through the orders service."""

    async def read(self, order_id: str, message_ids: Sequence[str]) -> TimelinePart:
        """Return the order's changes with all the rest."""
        part = TimelinePart()
        stored = await self._session.run(_ORDER, of_order=order_id)
        part.changes = await self._session.run(_CHANGES, of_order=order_id)
        await self._read_messages(part, order_id, message_ids)
        if stored:
            part.order = stored[0]
            part.user_id = part.order.user_id
            await self._read_outbox_rows(part, order_id, message_ids, _spans(part.order, part))
        return part


class PaymentTimeline(TimelineParts):
    """The way of orders through the payments service."""

    async def read(self, order_id: str, message_ids: Sequence[str]) -> TimelinePart:
        """Return the payment and its postings with all the rest."""
        part = TimelinePart()
        part.decisions = await self._session.run(_DECISIONS, of_order=order_id)
        part.postings = await self._session.run(_POSTINGS, of_order=order_id)
        # A transfer has the id of the message that caused it.
        caused_by = {row.transfer_id for row in part.postings}
        await self._read_messages(part, order_id, sorted(caused_by.union(message_ids)))
        if part.decisions:
            part.user_id = part.decisions[0].user_id
            moments = {row.received_at for row in part.inbox_rows}
            moments |= {row.created_at for row in part.postings}
            moments |= {row.decided_at for row in part.decisions}
            spans = [(moment, moment) for moment in sorted(moments)]
            await self._read_outbox_rows(part, order_id, message_ids, spans)
        return part


def _spans(order: OrderTerms, part: TimelinePart) -> list[Span]:
    """Return the times at which the orders service may have sent a message about the order.

    With each change, and shortly before a change that payments was asked for. A requested cancellation is
    requested again at ``repeat_at``, which the request before has set.
    """
    created_at = order.created_at
    moments = [created_at, *(row.at for row in part.changes), *(row.at for row in part.actions)]
    if order.cancellation_reason is not None:
        moments.append(order.repeat_at)
    return sorted((max(created_at, moment - LOOK_BACK), moment) for moment in moments)


def _apart(spans: Iterable[Span]) -> list[Span]:
    """Extend each of the sorted spans by a transaction, and join spans that overlap."""
    apart: list[Span] = []
    for begin, moment in spans:
        end = moment + TRANSACTION_MAX
        if apart and begin <= apart[-1][1]:
            apart[-1] = (apart[-1][0], max(apart[-1][1], end))
        else:
            apart.append((begin, end))
    return apart


def _ids_of(span: Span) -> tuple[str, str]:
    """Return the range of ids that were made in a span: a UUID of version 7 begins with milliseconds."""
    first, last = (int(moment.timestamp() * 1000) for moment in span)
    return str(uuid.UUID(int=first << 80)), str(uuid.UUID(int=last + 1 << 80))
