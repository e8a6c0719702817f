"""Placing orders and recording outcomes on a real Postgres: one order per key, one history, no gap."""

import asyncio
import itertools

import pytest

from eshop.contracts import payments_v1
from eshop.contracts.messages import Message
from eshop.domain.order import OrderStatus
from eshop.domain.refusal import Refusal
from eshop.handlers.idempotency import KEY_REUSED, Result
from eshop.handlers.orders import (
    Placed,
    PlaceOrder,
    place_orders,
    record_outcomes,
    repeat_cancellation_requests,
    request_cancellation,
)
from eshop.store.orders import REPEAT_SECONDS_MAX, StoredOrder
from eshop.store.outbox import read_unsent
from eshop.store.unit_of_work import OrdersUnitOfWork, Store
from tests.support.builders import CAUSE, Partition, captured, new_id, place_order

Orders = Store[OrdersUnitOfWork]
DEADLINE_SECONDS = 60


async def place(orders: Orders, *requests: PlaceOrder) -> list[Placed | Refusal]:
    """Place orders in one transaction."""
    return await orders.transact(lambda uow: place_orders(uow, requests, DEADLINE_SECONDS))


async def placed(orders: Orders, request: PlaceOrder) -> str:
    """Place one order and return its id."""
    (answer,) = await place(orders, request)
    assert isinstance(answer, Placed)
    return answer.order.order.order_id


async def record(orders: Orders, messages: list[Message]) -> int:
    """Handle a batch, and return how many statements that took."""

    async def work(uow: OrdersUnitOfWork) -> int:
        await record_outcomes(uow, messages)
        return uow.session.statements

    return await orders.transact(work)


async def feed(orders: Orders, user_id: str) -> list[tuple[int, str, int]]:
    """Return the user's changes: number, status, version."""
    rows = await orders.transact(lambda uow: uow.feed.read(user_id, 0, 1_000))
    return [(row.feed_number, row.status, row.version) for row in rows]


async def outbox(orders: Orders) -> list[str]:
    """Return the types of all messages in the outbox, in order."""
    unsent = await orders.database.transact(lambda session: read_unsent(session, 10_000))
    return [row.message.type.rsplit(".", 1)[1] for row in unsent]


async def test_same_key_makes_one_order_and_the_same_answer(orders: Orders) -> None:
    first, second = place_order("ann", key="k"), place_order("ann", key="k")
    (made,) = await place(orders, first)
    (again,) = await place(orders, second)
    assert isinstance(made, Placed)
    assert isinstance(again, Placed)
    assert (made.replayed, again.replayed) == (False, True)
    assert made.order == again.order
    assert await outbox(orders) == ["OrderCreated"]


async def test_replay_is_answered_as_created_even_when_the_order_has_moved_on(orders: Orders) -> None:
    order_id = await placed(orders, place_order("ann", key="k"))
    await record(orders, [Partition().message(captured("ann", order_id, 5))])
    (again,) = await place(orders, place_order("ann", key="k"))
    assert isinstance(again, Placed)
    assert (again.order.order.status, again.order.order.version) == (OrderStatus.NEW, 1)


async def test_same_key_twice_in_a_batch_is_one_order_and_another_body_is_refused(orders: Orders) -> None:
    answers = await place(
        orders,
        place_order("ann", key="k"),
        place_order("ann", key="k"),
        place_order("ann", key="k", fingerprint=b"other"),
        place_order("bob", key="k"),
    )
    assert [isinstance(answer, Placed) and answer.replayed for answer in answers] == [
        False,
        True,
        False,
        False,
    ]
    assert answers[2] == Refusal("idempotency-key-reused", "the key was used for another request")
    assert await outbox(orders) == ["OrderCreated", "OrderCreated"]


async def test_fifty_requests_with_one_key_at_once_make_one_order(orders: Orders) -> None:
    answers = await asyncio.gather(*(place(orders, place_order("ann", key="k")) for _ in range(50)))
    made = {answer.order.order.order_id for (answer,) in answers if isinstance(answer, Placed)}
    assert len(made) == 1
    assert await feed(orders, "ann") == [(1, "NEW", 1)]


async def test_feed_numbers_have_no_gap_under_concurrent_writers(orders: Orders) -> None:
    await asyncio.gather(
        *(place(orders, place_order("ann"), place_order("bob"), place_order("ann")) for _ in range(20))
    )
    assert [seq for seq, _, _ in await feed(orders, "ann")] == list(range(1, 41))
    assert [seq for seq, _, _ in await feed(orders, "bob")] == list(range(1, 21))


async def test_redelivered_outcome_is_recorded_once(orders: Orders) -> None:
    order_id = await placed(orders, place_order("ann"))
    partition = Partition()
    message = partition.message(captured("ann", order_id, 5))
    for batch in ([message], [message], [partition.repeated(message)]):
        await record(orders, batch)
    assert await feed(orders, "ann") == [(1, "NEW", 1), (2, "FINISHED", 2)]
    assert await outbox(orders) == ["OrderCreated", "OrderFinished"]


async def test_refund_cancels_a_finished_order_in_the_same_batch(orders: Orders) -> None:
    order_id = await placed(orders, place_order("ann"))
    partition = Partition()
    paid = captured("ann", order_id, 5)
    refund = payments_v1.PaymentRefunded(**paid.model_dump(), reason="user")
    await record(orders, [partition.message(paid), partition.message(refund)])
    assert await feed(orders, "ann") == [(1, "NEW", 1), (2, "FINISHED", 2), (3, "CANCELLED", 3)]
    (order,) = (await orders.transact(lambda uow: uow.orders.get([order_id]))).values()
    assert (order.order.status, order.order.reason, order.order.version) == (OrderStatus.CANCELLED, "user", 3)


async def test_outcome_of_an_order_that_does_not_exist_changes_nothing(orders: Orders) -> None:
    with pytest.raises(AssertionError, match="does not exist"):
        await record(orders, [Partition().message(captured("ann", new_id(), 5))])
    assert await outbox(orders) == []


async def test_number_of_statements_does_not_grow_with_the_batch(orders: Orders) -> None:
    async def counted(requests: list[PlaceOrder]) -> int:
        async def work(uow: OrdersUnitOfWork) -> int:
            await place_orders(uow, requests, DEADLINE_SECONDS)
            return uow.session.statements

        return await orders.transact(work)

    one, many = (
        [place_order("user-0", key="k")],
        [place_order(f"user-{n % 50}", key=str(n)) for n in range(500)],
    )
    assert await counted(one) == await counted(many)
    partition = Partition()
    first, *rest = [partition.message(captured(r.user_id, r.order_id, 5)) for r in (*one, *many)]
    assert await record(orders, [first]) == await record(orders, rest)


async def make_overdue(orders: Orders) -> None:
    """Let the deadline of every order have passed."""
    await orders.database.transact(lambda session: session.run_sql("UPDATE orders SET repeat_at = now()"))


async def test_overdue_order_is_asked_about_again_and_again_until_it_is_cancelled(orders: Orders) -> None:
    order_id = await placed(orders, place_order("ann"))

    async def ask() -> int:
        return await orders.transact(lambda uow: repeat_cancellation_requests(uow, 10))

    assert await ask() == 0
    for _ in range(2):
        await make_overdue(orders)
        assert await ask() == 1
        assert await ask() == 0
    partition = Partition()
    paid = captured("ann", order_id, 5)
    await record(orders, [partition.message(paid)])  # late: the question under way becomes its refund
    await make_overdue(orders)
    assert await ask() == 1
    await record(
        orders, [partition.message(payments_v1.PaymentRefunded(**paid.model_dump(), reason="timeout"))]
    )
    await make_overdue(orders)
    assert await ask() == 0
    assert await outbox(orders) == [
        "OrderCreated",
        "OrderCancellationRequested",
        "OrderCancellationRequested",
        "OrderFinished",
        "OrderCancellationRequested",
        "OrderCancelled",
    ]


async def test_order_is_asked_about_more_seldom_the_longer_it_waits(orders: Orders) -> None:
    await placed(orders, place_order("ann"))
    asked_at = []
    for second in range(0, 1_200, 10):
        # Everything about the order lies ten seconds further back.
        await orders.database.transact(
            lambda session: session.run_sql(
                "UPDATE orders SET (created_at, repeat_at)"
                " = (created_at - interval '10 s', repeat_at - interval '10 s')"
            )
        )
        if await orders.transact(lambda uow: repeat_cancellation_requests(uow, 10)):
            asked_at.append(second + 10)
    pauses = [later - earlier for earlier, later in itertools.pairwise(asked_at)]
    assert asked_at[0] == 60
    assert pauses == sorted(pauses)
    assert len(pauses) == 5
    assert max(pauses) <= REPEAT_SECONDS_MAX + 10


async def test_two_deadline_tasks_at_once_ask_once(orders: Orders) -> None:
    await place(orders, *(place_order(f"user-{number}") for number in range(20)))
    await make_overdue(orders)
    asked = await asyncio.gather(
        *(orders.transact(lambda uow: repeat_cancellation_requests(uow, 100)) for _ in range(4))
    )
    assert sum(asked) == 20


async def test_cancellation_is_asked_for_by_the_orders_own_user_only(orders: Orders) -> None:
    order_id = await placed(orders, place_order("ann"))
    assert await orders.transact(lambda uow: request_cancellation(uow, "bob", order_id, CAUSE)) is None
    assert await orders.transact(lambda uow: request_cancellation(uow, "ann", order_id, CAUSE)) is not None
    assert await outbox(orders) == ["OrderCreated", "OrderCancellationRequested"]


async def test_refund_whose_answer_was_lost_is_asked_for_again_until_the_order_is_cancelled(
    orders: Orders,
) -> None:
    order_id = await placed(orders, place_order("ann"))
    partition = Partition()
    paid = captured("ann", order_id, 5)
    await record(orders, [partition.message(paid)])
    await orders.transact(lambda uow: request_cancellation(uow, "ann", order_id, CAUSE))
    for _ in range(2):  # the refund's message is lost, and lost again
        await make_overdue(orders)
        assert await orders.transact(lambda uow: repeat_cancellation_requests(uow, 10)) == 1
    unsent = await orders.database.transact(lambda session: read_unsent(session, 100))
    questions = [row.message.body for row in unsent if "CancellationRequested" in row.message.type]
    assert len(questions) == 3
    assert all('"reason":"user"' in question for question in questions)
    refund = payments_v1.PaymentRefunded(**paid.model_dump(), reason="user")
    await record(orders, [partition.message(refund)])
    await make_overdue(orders)
    assert await orders.transact(lambda uow: repeat_cancellation_requests(uow, 10)) == 0


async def test_finished_order_that_nobody_wants_ended_is_not_asked_about(orders: Orders) -> None:
    order_id = await placed(orders, place_order("ann"))
    await record(orders, [Partition().message(captured("ann", order_id, 5))])
    await make_overdue(orders)
    assert await orders.transact(lambda uow: repeat_cancellation_requests(uow, 10)) == 0


async def test_same_cancellation_by_key_is_asked_once_and_answered_as_before(orders: Orders) -> None:
    order_id = await placed(orders, place_order("ann"))

    async def cancel(fingerprint: bytes) -> Result[StoredOrder] | None:
        return await orders.transact(
            lambda uow: request_cancellation(
                uow, "ann", order_id, CAUSE, idempotency_key="k", fingerprint=fingerprint
            )
        )

    first = await cancel(b"same")
    assert first is not None
    await record(orders, [Partition().message(captured("ann", order_id, 5))])
    again = await cancel(b"same")
    assert again == Result(first.outcome, replayed=True)
    assert await cancel(b"other") == Result(KEY_REUSED)
    assert (await outbox(orders)).count("OrderCancellationRequested") == 1
