"""What a service's database knows of an order: read for people, by no index of its own.

The outbox is found by time, which is cheap where the time is known to the moment: a message has the time of
its transaction, and so has all else that the transaction wrote.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ARRAY, DateTime, Text, any_, bindparam, case, cast, func, or_, select
from sqlalchemy.dialects.postgresql import JSONB, UUID

from eshop.store.database import Session
from eshop.store.retention import KEPT_DAYS
from eshop.store.rows import arrays, rows
from eshop.store.schema import ORDERS, PAYMENTS

#: How long before an order's changes what led to them is looked for.
LOOK_BACK = timedelta(seconds=60)
_outbox = ORDERS.tables["outbox"]  # the same tables in every service's database
_inbox = ORDERS.tables["inbox"]
_letters = ORDERS.tables["dead_letters"]
_actions = ORDERS.tables["operator_actions"]
_orders = ORDERS.tables["orders"]
_history = ORDERS.tables["order_history"]
_payments = PAYMENTS.tables["payments"]
_transfers = PAYMENTS.tables["transfers"]
_legs = PAYMENTS.tables["legs"]
_wallet_history = PAYMENTS.tables["wallet_history"]

Span = tuple[datetime, datetime]


@dataclass(slots=True)
class Trail:
    """Rows of the tables, each sort in order of time. ``user_id`` where the service has the order at all."""

    order: Any = None
    user_id: str | None = None
    changes: list[Any] = field(default_factory=list)
    decisions: list[Any] = field(default_factory=list)
    postings: list[Any] = field(default_factory=list)
    sendings: list[Any] = field(default_factory=list)
    receipts: list[Any] = field(default_factory=list)
    letters: list[Any] = field(default_factory=list)
    actions: list[Any] = field(default_factory=list)


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
        case((_legs.c.user_id.is_not(None), _wallet_history.c.seq)).label("seq"),
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
_span = rows(since=DateTime(timezone=True), until=DateTime(timezone=True))
#: One range of the BRIN index for each span.
_SENT_WITHIN = select(_outbox).where(
    _outbox.c.created_at >= _span.c.since,
    _outbox.c.created_at <= _span.c.until,
    _outbox.c.user_id == bindparam("of_user"),
    cast(_outbox.c.body, JSONB)["order_id"].astext == cast(bindparam("of_order"), Text),
)
_SENT_AS = select(_outbox).where(_outbox.c.message_id == any_(_ids))
_KEPT_SINCE = select(
    *(
        (func.now() - func.make_interval(0, 0, 0, KEPT_DAYS[table])).label(table)
        for table in ("outbox", "inbox")
    )
)


class Trails(ABC):
    """The way of orders through one service."""

    def __init__(self, session: Session, consumer: str) -> None:
        self._session = session
        self._consumer = consumer

    @abstractmethod
    async def read(self, order_id: str, message_ids: Sequence[str]) -> Trail:
        """Return what the service has of an order, and of these messages, received or sent."""

    async def kept_since(self) -> Any:
        """Return the times before which rows of the outbox and of the inbox are removed."""
        (row,) = await self._session.run(_KEPT_SINCE)
        return row

    async def _read_messages(self, trail: Trail, order_id: str, message_ids: Sequence[str]) -> None:
        asked: dict[str, Any] = {"of_consumer": self._consumer, "message_ids": list(message_ids)}
        trail.receipts = await self._session.run(_RECEIPTS, **asked)
        trail.letters = await self._session.run(_LETTERS, of_order=order_id, **asked)
        letter_ids = [row.dead_letter_id for row in trail.letters]
        trail.actions = await self._session.run(_ACTIONS, of_order=order_id, dead_letter_ids=letter_ids)

    async def _read_sendings(
        self, trail: Trail, order_id: str, message_ids: Sequence[str], spans: Iterable[Span]
    ) -> None:
        within = await self._session.run(
            _SENT_WITHIN,
            of_order=order_id,
            of_user=trail.user_id,
            **arrays(("since", "until"), list(_apart(spans))),
        )
        named = await self._session.run(_SENT_AS, message_ids=list(message_ids))
        by_id = {row.outbox_id: row for row in [*within, *named]}
        trail.sendings = [by_id[outbox_id] for outbox_id in sorted(by_id)]


class OrderTrails(Trails):
    """The way of orders through the orders service."""

    async def read(self, order_id: str, message_ids: Sequence[str]) -> Trail:
        """Return the order's changes with all the rest."""
        trail = Trail()
        stored = await self._session.run(_ORDER, of_order=order_id)
        trail.changes = await self._session.run(_CHANGES, of_order=order_id)
        await self._read_messages(trail, order_id, message_ids)
        if stored:
            trail.order = stored[0]
            trail.user_id = trail.order.user_id
            await self._read_sendings(trail, order_id, message_ids, _spans(trail))
        return trail


class PaymentTrails(Trails):
    """The way of orders through the payments service."""

    async def read(self, order_id: str, message_ids: Sequence[str]) -> Trail:
        """Return the payment and its postings with all the rest."""
        trail = Trail()
        trail.decisions = await self._session.run(_DECISIONS, of_order=order_id)
        trail.postings = await self._session.run(_POSTINGS, of_order=order_id)
        # A transfer has the id of the message that caused it.
        caused_by = {row.transfer_id for row in trail.postings}
        await self._read_messages(trail, order_id, sorted(caused_by.union(message_ids)))
        if trail.decisions:
            trail.user_id = trail.decisions[0].user_id
            moments = {row.received_at for row in trail.receipts}
            moments |= {row.created_at for row in trail.postings}
            moments |= {row.decided_at for row in trail.decisions}
            spans = [(moment, moment) for moment in sorted(moments)]
            await self._read_sendings(trail, order_id, message_ids, spans)
        return trail


def _spans(trail: Trail) -> list[Span]:
    """Return when the orders service may have sent something about the order.

    With each change, and shortly before one, when payments was asked for it. An order whose end was asked for
    is asked about again at ``ask_at``, which was set by the question before.
    """
    created_at = trail.order.created_at
    moments = [created_at, *(row.at for row in (*trail.changes, *trail.actions))]
    if trail.order.ending is not None:
        moments.append(trail.order.ask_at)
    return sorted((max(created_at, moment - LOOK_BACK), moment) for moment in moments)


def _apart(spans: Iterable[Span]) -> Iterator[Span]:
    """Join spans, which are sorted, where they overlap."""
    last: Span | None = None
    for span in spans:
        if last is not None and span[0] <= last[1]:
            last = (last[0], max(last[1], span[1]))
            continue
        if last is not None:
            yield last
        last = span
    if last is not None:
        yield last
