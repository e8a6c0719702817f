"""The commands of the orders service: place orders, record outcomes of payments, request cancellations.

See docs/adr/0011-repeat-cancellation-requests.md.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

from eshop.contracts import orders_v1, payments_v1
from eshop.contracts.bodies import Body
from eshop.contracts.messages import Message
from eshop.domain.order import Order, OrderStatus, PaymentOutcome, record_outcome
from eshop.domain.refusal import Refusal
from eshop.handlers.announce import Cause, outgoing
from eshop.handlers.idempotency import KEY_REUSED, Result, once
from eshop.store.operators import OperatorAction
from eshop.store.orders import CancellationRequest, HistoryEntry, NewOrder, StoredOrder
from eshop.store.requests import RequestKey
from eshop.store.unit_of_work import OrdersUnitOfWork

#: The shortest time between two cancellation requests for an order.
REPEAT_SECONDS = 30


@dataclass(frozen=True, slots=True)
class PlaceOrder:
    """A request for an order, validated. ``items_json`` is a JSON array."""

    order_id: str
    user_id: str
    amount_minor: int
    currency: str
    description: str
    items_json: str
    idempotency_key: str | None
    fingerprint: bytes | None
    cause: Cause

    @property
    def key(self) -> tuple[str, str] | None:
        """The idempotency key and fingerprint of the request, if it has a key."""
        return None if self.idempotency_key is None else (self.user_id, self.idempotency_key)


@dataclass(frozen=True, slots=True)
class Placed:
    """The order as it was created; ``replayed`` if an earlier request with the key created it."""

    order: StoredOrder
    replayed: bool


async def place_orders(
    uow: OrdersUnitOfWork, requests: Sequence[PlaceOrder], deadline_seconds: int
) -> list[Placed | Refusal]:
    """Place orders of any users in one transaction; return one result each, in order.

    A request with a used key gets the order of that key, or a refusal if the fingerprints differ. Two
    requests with one key in a batch make one order.
    """
    feed_numbers = await uow.users.lock(request.user_id for request in requests)
    known = await uow.orders.by_key(sorted({request.key for request in requests if request.key is not None}))
    by_request: list[str] = []
    new: dict[str, NewOrder] = {}
    first_with_key = {key: stored.order.order_id for key, stored in known.items()}
    for request in requests:
        order_id = request.order_id
        if request.key is not None:
            order_id = first_with_key.setdefault(request.key, order_id)
        if order_id == request.order_id:
            feed_numbers[request.user_id] += 1
            new[order_id] = _new_order(request, feed_numbers[request.user_id])
        by_request.append(order_id)
    placed = {stored.order.order_id: stored for stored in known.values()}
    placed |= await _insert(uow, new, [r for r in requests if r.order_id in new], deadline_seconds)
    await uow.users.save(feed_numbers)
    return [
        _answer(request, placed[order_id]) for request, order_id in zip(requests, by_request, strict=True)
    ]


def _new_order(request: PlaceOrder, feed_number: int) -> NewOrder:
    life = Order(request.order_id, request.user_id, request.amount_minor, request.currency)
    return NewOrder(
        life,
        feed_number,
        request.description,
        request.items_json,
        request.idempotency_key,
        request.fingerprint,
    )


async def _insert(
    uow: OrdersUnitOfWork, new: dict[str, NewOrder], requests: Sequence[PlaceOrder], deadline_seconds: int
) -> dict[str, StoredOrder]:
    if not new:
        return {}
    created = await uow.orders.add(list(new.values()), deadline_seconds)
    await uow.orders.record(HistoryEntry(order.feed_number, order.order) for order in new.values())
    await uow.outbox.append([outgoing(_order_created(created[r.order_id]), r.cause) for r in requests])
    return created


def _order_created(order: StoredOrder) -> Body:
    return orders_v1.OrderCreated(
        user_id=order.order.user_id,
        order_id=order.order.order_id,
        amount_minor=order.order.amount_minor,
        currency=order.order.currency,
        version=order.order.version,
        feed_number=order.feed_number,
        pay_before=order.repeat_at,
    )


def _answer(request: PlaceOrder, order: StoredOrder) -> Placed | Refusal:
    replayed = order.order.order_id != request.order_id
    if replayed and order.fingerprint != request.fingerprint:
        return KEY_REUSED
    return Placed(as_created(order), replayed)


def as_created(order: StoredOrder) -> StoredOrder:
    """Return the order as at its creation, regardless of later changes."""
    life = replace(order.order, status=OrderStatus.NEW, reason=None, version=1)
    return replace(order, order=life, updated_at=order.created_at)


async def record_outcomes(uow: OrdersUnitOfWork, messages: Sequence[Message]) -> None:
    """Record the outcomes that payments decided: one transaction, a fixed number of statements.

    The inbox drops a redelivered message; a repeated outcome changes nothing. Raises AssertionError for an
    order of another user, and for an unknown order that was not refunded.
    """
    fresh = await uow.inbox.claim(messages)
    outcomes = [(message, outcome) for message in fresh if (outcome := _outcome(message.body)) is not None]
    if outcomes:
        await _apply_outcomes(uow, outcomes)


@dataclass(frozen=True, slots=True)
class _Outcome:
    order_id: str
    decided: PaymentOutcome
    reason: str | None


def _outcome(body: Body) -> _Outcome | None:
    match body:
        case payments_v1.PaymentCaptured():
            return _Outcome(body.order_id, PaymentOutcome.CAPTURED, None)
        case payments_v1.PaymentRefused():
            return _Outcome(body.order_id, PaymentOutcome.REFUSED, body.reason)
        case payments_v1.PaymentRefunded():
            return _Outcome(body.order_id, PaymentOutcome.REFUNDED, body.reason)
        case _:
            return None  # accounts are not the business of orders


async def _apply_outcomes(uow: OrdersUnitOfWork, outcomes: Sequence[tuple[Message, _Outcome]]) -> None:
    feed_numbers = await uow.users.lock((message.user_id for message, _ in outcomes), add_missing=False)
    stored = await uow.orders.get(outcome.order_id for _, outcome in outcomes)
    lives = {order_id: order.order for order_id, order in stored.items()}
    history: list[HistoryEntry] = []
    events = []
    for message, outcome in outcomes:
        before = lives.get(outcome.order_id)
        if before is None and outcome.decided is PaymentOutcome.REFUNDED:
            continue  # an operator had payments give it back: nobody is charged for an order that is nowhere
        assert before is not None, f"order {outcome.order_id} does not exist"
        assert before.user_id == message.user_id, f"order {outcome.order_id} is another user's"
        after = record_outcome(before, outcome.decided, outcome.reason)
        if after is before:
            continue
        lives[outcome.order_id] = after
        feed_numbers[message.user_id] += 1
        history.append(HistoryEntry(feed_numbers[message.user_id], after))
        events.append(outgoing(_order_changed(history[-1]), Cause.of(message)))
    if history:
        await uow.orders.move({entry.order.order_id: entry.order for entry in history}.values())
        await uow.orders.record(history)
        await uow.users.save(feed_numbers)
        await uow.outbox.append(events)


def _order_changed(entry: HistoryEntry) -> Body:
    life = entry.order
    common = {
        "user_id": life.user_id,
        "order_id": life.order_id,
        "amount_minor": life.amount_minor,
        "currency": life.currency,
        "version": life.version,
        "feed_number": entry.feed_number,
    }
    if life.status is OrderStatus.FINISHED:
        return orders_v1.OrderFinished.model_validate(common)
    return orders_v1.OrderCancelled.model_validate({**common, "reason": life.reason})


async def request_cancellation(
    uow: OrdersUnitOfWork,
    user_id: str,
    order_id: str,
    cause: Cause,
    *,
    idempotency_key: str | None = None,
    fingerprint: bytes = b"",
) -> Result[StoredOrder] | None:
    """Request the cancellation of an order; return None if the user has no such order.

    A cancelled order stays as it is. The outcome comes by the feed. The same request again, by its key, gets
    the same result.
    """
    await uow.users.lock([user_id], add_missing=False)
    order = (await uow.orders.get([order_id])).get(order_id)
    if order is None or order.order.user_id != user_id:
        return None
    key = None if idempotency_key is None else RequestKey(user_id, "cancel-order", idempotency_key)

    async def requested() -> StoredOrder | Refusal:
        if order.order.status is not OrderStatus.CANCELLED:
            await _request_cancellations(uow, await uow.orders.end(order_id, "user", REPEAT_SECONDS), cause)
        return order

    return await once(
        uow.requests, key, fingerprint, requested, store=_state, restore=partial(_with_state, order)
    )


def _state(order: StoredOrder) -> dict[str, Any]:
    """Return the changing part of an order, to be stored with a request."""
    life = order.order
    return {
        "status": life.status,
        "reason": life.reason,
        "version": life.version,
        "updated_at": order.updated_at.isoformat(),
    }


def _with_state(order: StoredOrder, state: dict[str, Any]) -> StoredOrder:
    """Return an order as it was when the result was stored."""
    status = OrderStatus(state["status"])
    life = replace(order.order, status=status, reason=state["reason"], version=state["version"])
    return replace(order, order=life, updated_at=datetime.fromisoformat(state["updated_at"]))


async def request_refund(
    uow: OrdersUnitOfWork, order_id: str, *, reason: str, operator: str, cause: Cause
) -> tuple[StoredOrder, bool] | None:
    """Request a cancellation for an operator, and record the operator and the reason.

    Return the order as it is and whether a cancellation was requested, or None without such an order. A
    cancelled order stays as it is.
    """
    found = (await uow.orders.get([order_id])).get(order_id)
    if found is None:
        return None
    user_id = found.order.user_id
    await uow.users.lock([user_id], add_missing=False)
    order = (await uow.orders.get([order_id]))[order_id]
    if order.order.status is OrderStatus.CANCELLED:
        return order, False
    await uow.operators.record(OperatorAction("refund", user_id, order_id, reason, operator))
    await _request_cancellations(uow, await uow.orders.end(order_id, "refunded", REPEAT_SECONDS), cause)
    return order, True


async def repeat_cancellation_requests(uow: OrdersUnitOfWork, orders_max: int) -> int:
    """Request the cancellation of overdue NEW orders, and repeat older requests.

    Return the number of requests. The repetition until the order is final heals every lost message: payments
    replies with the outcome it has, and refuses for good an order it never saw.
    """
    candidates = await uow.orders.overdue(orders_max)
    if not candidates:
        return 0
    await uow.users.lock((user_id for _, user_id in candidates), add_missing=False)
    still = await uow.orders.repeat_cancellation([order_id for order_id, _ in candidates], REPEAT_SECONDS)
    await _request_cancellations(uow, still)
    return len(still)


async def _request_cancellations(
    uow: OrdersUnitOfWork, cancellations: Sequence[CancellationRequest], cause: Cause | None = None
) -> None:
    """Append the requests to the outbox. Without a cause, each request follows from its own order."""
    await uow.outbox.append(
        [
            outgoing(
                orders_v1.OrderCancellationRequested.model_validate(asdict(cancellation)),
                cause or Cause(correlation_id=cancellation.order_id, causation_id=cancellation.order_id),
            )
            for cancellation in cancellations
        ]
    )
