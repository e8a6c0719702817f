"""An order's timeline: reads each service's part of it, and puts the steps in order of time."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from eshop.contracts.proto import timeline_v1_pb2 as pb
from eshop.contracts.services import SERVICES

MESSAGES_MAX = 1_000
#: The second round reads the messages that the first round has named. No chain of messages is longer.
ROUNDS_MAX = 2

Ask = Callable[[pb.GetTimelinePartRequest], Awaitable[pb.TimelinePart]]

#: All steps of a transaction have the same time; this is their order in the transaction.
_ORDER = ("replay", "discard", "refund", "received", "parked", "requested", "changed", "decided", "posted")
_RANKS = {what: rank for rank, what in enumerate((*_ORDER, "appended", "published", "dropped"))}


@dataclass(frozen=True, slots=True)
class Step:
    """A step of an order's timeline. ``internal`` is for operators."""

    at: datetime
    service: str
    what: str
    details: dict[str, Any]
    internal: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Timeline:
    """Everything known about an order, in order of time.

    ``removed`` tells which messages retention has deleted, ``waiting`` which messages another service has not
    received: neither is among the steps.
    """

    order_id: str
    user_id: str
    steps: list[Step]
    removed: list[dict[str, Any]]
    waiting: list[dict[str, Any]]

    def as_json(self, *, with_internal: bool) -> dict[str, Any]:
        """Return the timeline as plain data; ``after_ms`` counts from the step before."""
        times = [step.at for step in self.steps]
        steps = [
            {
                "at": _text(step.at),
                "after_ms": round((step.at - before).total_seconds() * 1000, 3),
                "service": step.service,
                "what": step.what,
                **step.details,
                **(step.internal if with_internal else {}),
            }
            for step, before in zip(self.steps, times[:1] + times, strict=False)
        ]
        return {
            "order_id": self.order_id,
            "user_id": self.user_id,
            "steps": steps,
            "removed": self.removed,
            "waiting": self.waiting,
        }


async def read_timeline(order_id: str, services: Mapping[str, Ask]) -> Timeline | None:
    """Read the timeline from all services, by name; return None if no service knows the order."""
    parts = await _read_parts(order_id, services)
    if not any(part.user_id or part.parked for part in parts.values()):
        return None
    types = {
        outbox_row.message_id: outbox_row.type for part in parts.values() for outbox_row in part.outbox_rows
    }
    steps = [step for service, part in parts.items() for step in _steps(service, part, types)]
    return Timeline(
        order_id,
        next((part.user_id for part in parts.values() if part.user_id), ""),
        sorted(steps, key=lambda step: (step.at, _RANKS.get(step.what, 0))),
        [gone for service, part in parts.items() for gone in _removed(service, part)],
        [
            waiting
            for sender, part in parts.items()
            for reader, other in parts.items()
            if SERVICES[sender].events in SERVICES[reader].reads
            for waiting in _waiting(part, reader, other)
        ],
    )


async def _read_parts(order_id: str, services: Mapping[str, Ask]) -> dict[str, pb.TimelinePart]:
    """Read each part with the messages that the other parts name; read again if these name more messages."""
    parts: dict[str, pb.TimelinePart] = {}
    named: dict[str, set[str]] = {}
    for _ in range(ROUNDS_MAX):
        for service, ask in services.items():
            others = [part for other, part in parts.items() if other != service]
            sent = {outbox_row.message_id for part in others for outbox_row in part.outbox_rows}
            if service not in parts or sent != named[service]:
                parts[service], named[service] = await ask(_request(order_id, others)), sent
    return parts


def _request(order_id: str, others: Iterable[pb.TimelinePart]) -> pb.GetTimelinePartRequest:
    """Return the request to a service: it names the messages that others sent, received and parked."""
    ids: set[str] = set()
    for other in others:
        ids |= {outbox_row.message_id for outbox_row in other.outbox_rows}
        ids |= {outbox_row.causation_id for outbox_row in other.outbox_rows}
        ids |= {inbox_row.message_id for inbox_row in other.inbox_rows}
        ids |= {parked.message_id for parked in other.parked}
    return pb.GetTimelinePartRequest(order_id=order_id, message_ids=sorted(ids)[:MESSAGES_MAX])


def _steps(service: str, part: pb.TimelinePart, types: dict[str, str]) -> Iterator[Step]:
    yield from _changes(service, part)
    yield from _decisions(service, part)
    for posting in part.postings:
        yield _posted(service, posting)
    yield from _outbox_rows(service, part)
    yield from _inbox_rows(service, part, types)
    for parked in part.parked:
        yield Step(
            _time(parked.at),
            service,
            "parked",
            {"message_id": parked.message_id, "type": types.get(parked.message_id), "status": parked.status},
            {"dead_letter_id": parked.dead_letter_id, "cause": parked.cause},
        )
    for action in part.actions:
        said = {"operator": action.operator, "reason": action.reason}
        of_letter = {"dead_letter_id": action.dead_letter_id} if action.dead_letter_id else {}
        yield Step(_time(action.at), service, action.action, {}, said | of_letter)


def _changes(service: str, part: pb.TimelinePart) -> Iterator[Step]:
    for change in part.changes:
        details = {
            "status": change.status,
            "reason": change.reason or None,
            "version": change.version,
            "feed_number": change.feed_number,
        }
        if change.version == 1:
            details |= {"amount_minor": part.amount_minor, "currency": part.currency}
        yield Step(_time(change.at), service, "requested" if change.version == 1 else "changed", details)


def _decisions(service: str, part: pb.TimelinePart) -> Iterator[Step]:
    """Yield the decisions: of a refund the payment itself tells only the last, and its postings when."""
    for decision in part.decisions:
        told = {"status": decision.status, "reason": decision.reason or None}
        if decision.status != "REFUNDED":
            yield Step(_time(decision.at), service, "decided", told)
            continue
        yield Step(_time(decision.at), service, "decided", {"status": "CAPTURED", "reason": None})
        for at in {_time(posting.at) for posting in part.postings if posting.kind == "refund"}:
            yield Step(at, service, "decided", told)


def _posted(service: str, posting: pb.Posting) -> Step:
    details: dict[str, Any] = {
        "transfer_id": posting.transfer_id,
        "kind": posting.kind,
        "account": posting.account,
        "amount_minor": posting.amount_minor,
        "currency": posting.currency,
    }
    if posting.feed_number:
        details |= {"balance_minor": posting.balance_minor, "feed_number": posting.feed_number}
    return Step(_time(posting.at), service, "posted", details)


def _outbox_rows(service: str, part: pb.TimelinePart) -> Iterator[Step]:
    for outbox_row in part.outbox_rows:
        message = {"message_id": outbox_row.message_id, "type": outbox_row.type}
        yield Step(_time(outbox_row.appended_at), service, "appended", message)
        if outbox_row.HasField("sent_at"):
            yield Step(_time(outbox_row.sent_at), service, "published", message | _place(outbox_row))


def _inbox_rows(service: str, part: pb.TimelinePart, types: dict[str, str]) -> Iterator[Step]:
    for inbox_row in part.inbox_rows:
        message = {"message_id": inbox_row.message_id, "type": types.get(inbox_row.message_id)}
        yield Step(_time(inbox_row.received_at), service, "received", message | _place(inbox_row))
        if inbox_row.HasField("redelivered_at"):
            times = {"times": inbox_row.redelivered}
            yield Step(_time(inbox_row.redelivered_at), service, "dropped", message | times)


def _removed(service: str, part: pb.TimelinePart) -> Iterator[dict[str, Any]]:
    """Yield the tables from which rows about the order are deleted: it changed before their oldest rows."""
    moments = [_time(change.at) for change in part.changes]
    moments += [_time(decision.at) for decision in part.decisions]
    if not moments:
        return
    first = min(moments)
    for table, since in (("outbox", part.outbox_since), ("inbox", part.inbox_since)):
        if first < _time(since):
            yield {"service": service, "table": table, "before": _text(_time(since))}


def _waiting(sender: pb.TimelinePart, receiver: str, part: pb.TimelinePart) -> Iterator[dict[str, Any]]:
    """Yield messages that were sent and not received, unless retention may have deleted the receipt."""
    received = {inbox_row.message_id for inbox_row in part.inbox_rows}
    for outbox_row in sender.outbox_rows:
        if outbox_row.message_id not in received and _time(outbox_row.appended_at) >= _time(part.inbox_since):
            yield {"service": receiver, "message_id": outbox_row.message_id, "type": outbox_row.type}


def _place(at: pb.OutboxRow | pb.InboxRow) -> dict[str, Any]:
    return {"topic": at.topic, "partition": at.partition, "offset": at.offset}


def _time(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)


def _text(at: datetime) -> str:
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")
