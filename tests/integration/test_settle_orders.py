"""Deciding payments on a real Postgres: once in effect, whatever comes again, in one transaction a batch."""

import asyncio

from eshop.contracts import orders_v1
from eshop.contracts.messages import Message
from eshop.handlers.payments import Account, Request, open_account, settle_orders, top_up_account
from eshop.store.outbox import read_unsent
from eshop.store.unit_of_work import PaymentsUnitOfWork, Store
from tests.support.builders import CAUSE, Partition, new_id, order_created

Payments = Store[PaymentsUnitOfWork]


async def rich(payments: Payments, user_id: str, amount_minor: int) -> None:
    """Give the user an account with money."""
    await payments.transact(lambda uow: open_account(uow, Request(user_id, CAUSE), "USD"))
    answer = await payments.transact(
        lambda uow: top_up_account(
            uow, Request(user_id, CAUSE), amount_minor, transfer_id=new_id(), reference=None
        )
    )
    assert isinstance(answer.outcome, Account)


async def settle(payments: Payments, messages: list[Message]) -> int:
    """Handle a batch, and return how many statements that took."""

    async def work(uow: PaymentsUnitOfWork) -> int:
        await settle_orders(uow, messages)
        return uow.session.statements

    return await payments.transact(work)


async def balance(payments: Payments, user_id: str) -> int:
    """Return what is in the user's wallet."""
    return (await payments.transact(lambda uow: uow.wallets.get(user_id))).balance_minor


async def sent_types(payments: Payments) -> list[str]:
    """Return the types of the messages in the outbox, without those of accounts."""
    unsent = await payments.database.transact(lambda session: read_unsent(session, 10_000))
    types = [row.message.type.rsplit(".", 1)[1] for row in unsent]
    return [name for name in types if name.startswith("Payment")]


async def sums(payments: Payments) -> tuple[int, int]:
    """Return the sum of all legs, and the sum of what wallets have beyond their legs."""
    (row,) = await payments.database.transact(
        lambda session: session.run_sql(
            "SELECT coalesce(sum(amount_minor), 0)::bigint AS legs,"
            " (SELECT coalesce(sum(balance_minor), 0) FROM wallets)::bigint"
            " - coalesce(sum(amount_minor) FILTER (WHERE account = 'wallet'), 0)::bigint AS off FROM legs"
        )
    )
    return row.legs, row.off


async def test_orders_of_one_wallet_in_a_batch_see_each_other_in_order(payments: Payments) -> None:
    await rich(payments, "ann", 100)
    partition = Partition()
    batch = [partition.message(order_created("ann", amount)) for amount in (70, 40, 30)]
    await settle(payments, batch)
    assert await sent_types(payments) == ["PaymentCaptured", "PaymentRefused", "PaymentCaptured"]
    assert await balance(payments, "ann") == 0
    assert await sums(payments) == (0, 0)


async def test_redelivered_order_is_charged_once(payments: Payments) -> None:
    await rich(payments, "ann", 100)
    message = Partition().message(order_created("ann", 10))
    for _ in range(3):
        await settle(payments, [message])
    assert await balance(payments, "ann") == 90
    assert await sent_types(payments) == ["PaymentCaptured"]


async def test_order_that_the_relay_published_twice_is_charged_once(payments: Payments) -> None:
    await rich(payments, "ann", 100)
    partition = Partition()
    message = partition.message(order_created("ann", 10))
    await settle(payments, [message, partition.repeated(message)])
    await settle(payments, [partition.repeated(message)])
    assert await balance(payments, "ann") == 90
    assert await sent_types(payments) == ["PaymentCaptured"]


async def test_same_order_under_another_message_id_is_charged_once_and_answered_again(
    payments: Payments,
) -> None:
    await rich(payments, "ann", 100)
    partition = Partition()
    body = order_created("ann", 10)
    await settle(payments, [partition.message(body)])
    await settle(payments, [partition.message(body)])
    assert await balance(payments, "ann") == 90
    assert await sent_types(payments) == ["PaymentCaptured", "PaymentCaptured"]


async def test_order_that_comes_after_its_own_timeout_never_debits(payments: Payments) -> None:
    await rich(payments, "ann", 100)
    partition = Partition()
    order = order_created("ann", 10)
    timeout = orders_v1.OrderCancellationRequested(user_id="ann", order_id=order.order_id, reason="timeout")
    await settle(payments, [partition.message(timeout)])
    await settle(payments, [partition.message(order), partition.message(timeout)])
    assert await balance(payments, "ann") == 100
    assert set(await sent_types(payments)) == {"PaymentRefused"}


async def test_cancellation_in_the_same_batch_refunds(payments: Payments) -> None:
    await rich(payments, "ann", 100)
    partition = Partition()
    order = order_created("ann", 10)
    cancel = orders_v1.OrderCancellationRequested(user_id="ann", order_id=order.order_id, reason="user")
    await settle(payments, [partition.message(order), partition.message(cancel)])
    assert await balance(payments, "ann") == 100
    assert await sent_types(payments) == ["PaymentCaptured", "PaymentRefunded"]
    assert await sums(payments) == (0, 0)


async def test_number_of_statements_does_not_grow_with_the_batch(payments: Payments) -> None:
    users = [f"user-{number}" for number in range(50)]
    for user in users:
        await rich(payments, user, 1_000)
    partition = Partition()
    one = await settle(payments, [partition.message(order_created(users[0], 1))])
    many = await settle(
        payments, [partition.message(order_created(users[number % 50], 1)) for number in range(500)]
    )
    assert one == many
    assert len(await sent_types(payments)) == 501


async def test_two_workers_with_the_same_batch_charge_once(payments: Payments) -> None:
    users = [f"user-{number}" for number in range(20)]
    for user in users:
        await rich(payments, user, 100)
    partition = Partition()
    batch = [partition.message(order_created(user, 10)) for user in users for _ in range(5)]
    await asyncio.gather(*(settle(payments, part) for part in (batch, batch, batch[:60], batch[:30])))
    assert [await balance(payments, user) for user in users] == [50] * 20
    assert len(await sent_types(payments)) == 100
    assert await sums(payments) == (0, 0)
