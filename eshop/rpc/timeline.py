"""The TimelineParts servicer: every service that handles orders serves it."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Generic, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp
from grpc import aio

from eshop.contracts.proto import timeline_v1_pb2 as pb
from eshop.contracts.proto.timeline_v1_pb2_grpc import TimelinePartsServicer as Base
from eshop.rpc import convert
from eshop.rpc.convert import uuid_text
from eshop.rpc.server import InvalidRequest
from eshop.store.rows import (
    ActionRow,
    InboxRow,
    KeptSince,
    OrderChange,
    OutboxRow,
    ParkedRow,
    PaymentRow,
    PostingRow,
)
from eshop.store.timeline import TimelinePart
from eshop.store.unit_of_work import Store, UnitOfWork

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["TimelineParts"].full_name

MESSAGES_MAX = 1_000

Context = aio.ServicerContext[Any, Any]
U = TypeVar("U", bound=UnitOfWork)


class TimelinePartsServicer(Base, Generic[U]):
    """Returns the part of an order's timeline that one service knows."""

    def __init__(self, store: Store[U]) -> None:
        self._store = store

    async def GetTimelinePart(self, request: pb.GetTimelinePartRequest, context: Context) -> pb.TimelinePart:  # noqa: N802
        """Return the part of one order."""
        order_id = uuid_text(request.order_id)
        if order_id is None:
            raise InvalidRequest("the order id is no UUID")
        message_ids = list(_message_ids(request))

        async def read(uow: U) -> tuple[TimelinePart, KeptSince]:
            return await uow.timeline.read(order_id, message_ids), await uow.timeline.kept_since()

        part, kept_since = await self._store.transact(read)
        reply = pb.TimelinePart(
            user_id=part.user_id or "",
            outbox_since=convert.timestamp(kept_since.outbox),
            inbox_since=convert.timestamp(kept_since.inbox),
        )
        if part.order is not None:
            reply.amount_minor, reply.currency = part.order.amount_minor, part.order.currency
        reply.changes.extend(map(_change, part.changes))
        reply.decisions.extend(map(_decision, part.decisions))
        reply.postings.extend(map(_posting, part.postings))
        reply.outbox_rows.extend(map(_outbox_row, part.outbox_rows))
        reply.inbox_rows.extend(map(_inbox_row, part.inbox_rows))
        reply.parked.extend(map(_parked, part.letters))
        reply.actions.extend(map(_action, part.actions))
        return reply


def _message_ids(request: pb.GetTimelinePartRequest) -> Iterator[str]:
    """Yield valid UUIDs only: a causation id is free text of another service."""
    if len(request.message_ids) > MESSAGES_MAX:
        raise InvalidRequest(f"at most {MESSAGES_MAX} messages a call")
    for text in request.message_ids:
        if (message_id := uuid_text(text)) is not None:
            yield message_id


def _time(at: datetime | None) -> Timestamp | None:
    return None if at is None else convert.timestamp(at)


def _change(row: OrderChange) -> pb.Change:
    return pb.Change(
        at=_time(row.at),
        status=row.status,
        reason=row.reason or "",
        version=row.version,
        feed_number=row.feed_number,
    )


def _decision(row: PaymentRow) -> pb.Decision:
    return pb.Decision(at=_time(row.decided_at), status=row.status, reason=row.reason or "")


def _posting(row: PostingRow) -> pb.Posting:
    return pb.Posting(
        at=_time(row.created_at),
        transfer_id=row.transfer_id,
        kind=row.kind,
        account=row.account,
        amount_minor=row.amount_minor,
        currency=row.currency,
        balance_minor=row.balance_minor or 0,
        feed_number=row.feed_number or 0,
    )


def _outbox_row(row: OutboxRow) -> pb.OutboxRow:
    return pb.OutboxRow(
        message_id=row.message_id,
        type=row.type,
        causation_id=row.causation_id,
        appended_at=_time(row.created_at),
        sent_at=_time(row.sent_at),
        topic=row.topic,
        partition=row.sent_partition or 0,
        offset=row.sent_offset or 0,
    )


def _inbox_row(row: InboxRow) -> pb.InboxRow:
    return pb.InboxRow(
        message_id=row.message_id,
        received_at=_time(row.received_at),
        topic=row.topic,
        partition=row.partition,
        offset=row.offset,
        redelivered=row.redelivered,
        redelivered_at=_time(row.redelivered_at),
    )


def _parked(row: ParkedRow) -> pb.Parked:
    return pb.Parked(
        at=_time(row.parked_at),
        dead_letter_id=row.dead_letter_id,
        message_id=row.message_id,
        cause=row.cause,
        status=row.status,
    )


def _action(row: ActionRow) -> pb.Action:
    return pb.Action(
        at=_time(row.at),
        action=row.action,
        operator=row.operator,
        reason=row.reason,
        dead_letter_id=row.dead_letter_id or "",
    )
