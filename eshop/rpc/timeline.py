"""The client's side of trails: asks both services about an order, and puts all of it in order of time."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from eshop.contracts.proto import trails_v1_pb2 as pb

MESSAGES_MAX = 1_000

Ask = Callable[[pb.GetTrailRequest], Awaitable[pb.Trail]]

#: What one transaction did has one time; this is the order in which it did it.
_ORDER = ("replay", "discard", "refund", "received", "parked", "requested", "changed", "decided", "posted")
_RANKS = {what: rank for rank, what in enumerate((*_ORDER, "appended", "published", "dropped"))}


@dataclass(frozen=True, slots=True)
class Step:
    """What happened to an order. ``internal`` is for operators."""

    at: datetime
    service: str
    what: str
    details: dict[str, Any]
    internal: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Timeline:
    """All that is known of an order, in order of time.

    ``removed`` tells which messages are gone by retention, ``waiting`` which the other service has not
    received: neither is among the steps.
    """

    order_id: str
    user_id: str
    steps: list[Step]
    removed: list[dict[str, Any]]
    waiting: list[dict[str, Any]]

    def as_json(self, *, with_internal: bool) -> dict[str, Any]:
        """Return it as plain data; ``after_ms`` counts from the step before."""
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


async def read_timeline(order_id: str, ask_orders: Ask, ask_payments: Ask) -> Timeline | None:
    """Ask both services until neither can name another message; None where neither knows the order."""
    orders = await ask_orders(pb.GetTrailRequest(order_id=order_id))
    payments = await ask_payments(_request(order_id, orders))
    known = {sending.message_id for sending in orders.sendings}
    orders = await ask_orders(_request(order_id, payments))
    if {sending.message_id for sending in orders.sendings} != known:
        payments = await ask_payments(_request(order_id, orders))
    trails = {"orders": orders, "payments": payments}
    if not any(trail.user_id or trail.parked for trail in trails.values()):
        return None
    types = {sending.message_id: sending.type for trail in trails.values() for sending in trail.sendings}
    steps = [step for service, trail in trails.items() for step in _steps(service, trail, types)]
    return Timeline(
        order_id,
        orders.user_id or payments.user_id,
        sorted(steps, key=lambda step: (step.at, _RANKS.get(step.what, 0))),
        [gone for service, trail in trails.items() for gone in _removed(service, trail)],
        [*_waiting(orders, "payments", payments), *_waiting(payments, "orders", orders)],
    )


def _request(order_id: str, other: pb.Trail) -> pb.GetTrailRequest:
    """Return what to ask a service, given what the other one has sent, and what that followed from."""
    ids = {sending.message_id for sending in other.sendings}
    ids |= {sending.causation_id for sending in other.sendings}
    ids |= {receipt.message_id for receipt in other.receipts}
    ids |= {parked.message_id for parked in other.parked}
    return pb.GetTrailRequest(order_id=order_id, message_ids=sorted(ids)[:MESSAGES_MAX])


def _steps(service: str, trail: pb.Trail, types: dict[str, str]) -> Iterator[Step]:
    yield from _changes(service, trail)
    yield from _decisions(service, trail)
    for posting in trail.postings:
        yield _posted(service, posting)
    yield from _sendings(service, trail)
    yield from _receipts(service, trail, types)
    for parked in trail.parked:
        yield Step(
            _time(parked.at),
            service,
            "parked",
            {"message_id": parked.message_id, "type": types.get(parked.message_id), "status": parked.status},
            {"dead_letter_id": parked.dead_letter_id, "cause": parked.cause},
        )
    for action in trail.actions:
        said = {"operator": action.operator, "reason": action.reason}
        of_letter = {"dead_letter_id": action.dead_letter_id} if action.dead_letter_id else {}
        yield Step(_time(action.at), service, action.action, {}, said | of_letter)


def _changes(service: str, trail: pb.Trail) -> Iterator[Step]:
    for change in trail.changes:
        details = {
            "status": change.status,
            "reason": change.reason or None,
            "version": change.version,
            "feed_seq": change.feed_seq,
        }
        if change.version == 1:
            details |= {"amount_minor": trail.amount_minor, "currency": trail.currency}
        yield Step(_time(change.at), service, "requested" if change.version == 1 else "changed", details)


def _decisions(service: str, trail: pb.Trail) -> Iterator[Step]:
    """Yield the decisions: of a refund the payment itself tells only the last, and its postings when."""
    for decision in trail.decisions:
        told = {"status": decision.status, "reason": decision.reason or None}
        if decision.status != "REFUNDED":
            yield Step(_time(decision.at), service, "decided", told)
            continue
        yield Step(_time(decision.at), service, "decided", {"status": "CAPTURED", "reason": None})
        for at in {_time(posting.at) for posting in trail.postings if posting.kind == "refund"}:
            yield Step(at, service, "decided", told)


def _posted(service: str, posting: pb.Posting) -> Step:
    details: dict[str, Any] = {
        "transfer_id": posting.transfer_id,
        "kind": posting.kind,
        "account": posting.account,
        "amount_minor": posting.amount_minor,
        "currency": posting.currency,
    }
    if posting.feed_seq:
        details |= {"balance_minor": posting.balance_minor, "feed_seq": posting.feed_seq}
    return Step(_time(posting.at), service, "posted", details)


def _sendings(service: str, trail: pb.Trail) -> Iterator[Step]:
    for sending in trail.sendings:
        message = {"message_id": sending.message_id, "type": sending.type}
        yield Step(_time(sending.appended_at), service, "appended", message)
        if sending.HasField("sent_at"):
            yield Step(_time(sending.sent_at), service, "published", message | _place(sending))


def _receipts(service: str, trail: pb.Trail, types: dict[str, str]) -> Iterator[Step]:
    for receipt in trail.receipts:
        message = {"message_id": receipt.message_id, "type": types.get(receipt.message_id)}
        yield Step(_time(receipt.received_at), service, "received", message | _place(receipt))
        if receipt.HasField("redelivered_at"):
            times = {"times": receipt.redelivered}
            yield Step(_time(receipt.redelivered_at), service, "dropped", message | times)


def _removed(service: str, trail: pb.Trail) -> Iterator[dict[str, Any]]:
    """Yield from where something of the order is gone: it changed before what is kept there begins."""
    moments = [_time(change.at) for change in trail.changes]
    moments += [_time(decision.at) for decision in trail.decisions]
    if not moments:
        return
    first = min(moments)
    for table, since in (("outbox", trail.outbox_since), ("inbox", trail.inbox_since)):
        if first < _time(since):
            yield {"service": service, "table": table, "before": _text(_time(since))}


def _waiting(sender: pb.Trail, receiver: str, trail: pb.Trail) -> Iterator[dict[str, Any]]:
    """Yield what was sent, and not received, nor long enough ago to be forgotten."""
    received = {receipt.message_id for receipt in trail.receipts}
    for sending in sender.sendings:
        if sending.message_id not in received and _time(sending.appended_at) >= _time(trail.inbox_since):
            yield {"service": receiver, "message_id": sending.message_id, "type": sending.type}


def _place(at: pb.Sending | pb.Receipt) -> dict[str, Any]:
    return {"topic": at.topic, "partition": at.partition, "offset": at.offset}


def _time(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)


def _text(at: datetime) -> str:
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")
