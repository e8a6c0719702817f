"""Accounts on a real Postgres: closing, freezing, refunds, and the statement that adds up."""

import asyncio

import pytest

from eshop.contracts import orders_v1, payments_v1
from eshop.domain.payment import Payment, PaymentStatus
from eshop.domain.refusal import Refusal
from eshop.handlers.idempotency import Result
from eshop.handlers.orders import place_orders, record_outcomes, request_refund
from eshop.handlers.parking import BURST_MAX
from eshop.handlers.payments import (
    Account,
    Request,
    close_account,
    freeze_account,
    open_account,
    refund_payment,
    settle_orders,
    top_up_account,
)
from eshop.store.outbox import read_unsent
from eshop.store.unit_of_work import OrdersUnitOfWork, PaymentsUnitOfWork, Store
from tests.support.builders import CAUSE, Partition, captured, new_id, order_created, place_order
from tests.support.grpc_services import rows

Payments = Store[PaymentsUnitOfWork]
ANN = Request("ann", CAUSE)


async def opened(payments: Payments, currency: str = "USD") -> Result[Account]:
    """Open ann's account."""
    return await payments.transact(lambda uow: open_account(uow, ANN, currency))


async def filled(payments: Payments, amount_minor: int, reference: str | None = None) -> Result[Account]:
    """Top up ann's account."""
    return await payments.transact(
        lambda uow: top_up_account(uow, ANN, amount_minor, transfer_id=new_id(), reference=reference)
    )


async def frozen(payments: Payments, is_frozen: bool) -> Result[Account]:
    """Freeze ann's account, or lift that."""
    return await payments.transact(
        lambda uow: freeze_account(uow, ANN, is_frozen, reason="looks odd", operator="olga")
    )


def code(answer: Result[Account]) -> str | None:
    """Return the code of a refusal."""
    return answer.outcome.code if isinstance(answer.outcome, Refusal) else None


async def ask(payments: Payments, partition: Partition, *bodies: object) -> None:
    """Let payments handle these messages as one batch."""
    messages = [partition.message(body) for body in bodies]  # type: ignore[arg-type]
    await payments.transact(lambda uow: settle_orders(uow, messages))


async def last_message(store: Store[OrdersUnitOfWork] | Payments) -> tuple[str, str]:
    """Return type and body of the newest message in the outbox."""
    unsent = await store.database.transact(lambda session: read_unsent(session, 1_000))
    newest = unsent.rows[-1].message
    return newest.type.rsplit(".", 1)[1], newest.body


async def test_empty_account_is_closed_and_opens_again_in_its_currency(payments: Payments) -> None:
    await opened(payments)
    await filled(payments, 5)
    closing = lambda uow: close_account(uow, ANN)  # noqa: E731
    assert code(await payments.transact(closing)) == "account-not-empty"
    partition = Partition()
    await ask(payments, partition, order_created("ann", 5))
    assert (await payments.transact(closing)).outcome == Account("ann", 0, "USD", 4)
    assert (await last_message(payments))[0] == "AccountClosed"
    assert code(await payments.transact(closing)) == "no-account"
    await ask(payments, partition, order_created("ann", 1))
    assert '"reason":"no_account"' in (await last_message(payments))[1]
    assert code(await opened(payments, "EUR")) == "currency-mismatch"
    assert (await opened(payments)).outcome == Account("ann", 0, "USD", 5)


async def test_refund_of_a_closed_account_opens_it_again(payments: Payments) -> None:
    await opened(payments)
    await filled(payments, 5)
    order, partition = order_created("ann", 5), Partition()
    await ask(payments, partition, order)
    await payments.transact(lambda uow: close_account(uow, ANN))
    cancel = orders_v1.OrderCancellationRequested(user_id="ann", order_id=order.order_id, reason="user")
    await ask(payments, partition, cancel)
    wallet = await payments.transact(lambda uow: uow.wallets.get("ann"))
    assert (wallet.is_open, wallet.balance_minor) == (True, 5)


async def test_frozen_account_pays_nothing_until_the_freeze_is_lifted(payments: Payments) -> None:
    assert code(await frozen(payments, True)) == "no-account"
    await opened(payments)
    await filled(payments, 100)
    for _ in range(2):
        assert (await frozen(payments, True)).outcome == Account("ann", 100, "USD", 3, frozen=True)
    partition = Partition()
    await ask(payments, partition, order_created("ann", 5))
    assert '"reason":"account_frozen"' in (await last_message(payments))[1]
    await frozen(payments, False)
    await ask(payments, partition, order_created("ann", 5))
    assert (await last_message(payments))[0] == "PaymentCaptured"
    recorded = await payments.database.transact(
        lambda session: session.run_sql(
            "SELECT action, user_id, reason, operator FROM operator_actions ORDER BY at"
        )
    )
    assert [tuple(row) for row in recorded] == [
        ("freeze", "ann", "looks odd", "olga"),
        ("unfreeze", "ann", "looks odd", "olga"),
    ]


async def test_operator_refund_is_asked_once_recorded_and_ends_the_order(
    orders: Store[OrdersUnitOfWork],
) -> None:
    request = place_order("ann")
    await orders.transact(lambda uow: place_orders(uow, [request], 60))
    await orders.transact(
        lambda uow: record_outcomes(uow, [Partition().message(captured("ann", request.order_id, 5))])
    )

    async def refund(uow: OrdersUnitOfWork) -> bool | None:
        answer = await request_refund(uow, request.order_id, reason="broken", operator="olga", cause=CAUSE)
        return None if answer is None else answer[1]

    assert await orders.transact(refund) is True
    assert (await last_message(orders)) == (
        "OrderCancellationRequested",
        f'{{"user_id":"ann","order_id":"{request.order_id}","reason":"refunded"}}',
    )
    missing = await orders.transact(
        lambda uow: request_refund(uow, new_id(), reason="broken", operator="olga", cause=CAUSE)
    )
    assert missing is None


async def test_capture_of_an_order_that_is_nowhere_is_given_back_once_recorded_and_told(
    payments: Payments, orders: Store[OrdersUnitOfWork]
) -> None:
    await opened(payments)
    await filled(payments, 100)
    order_id = new_id()
    await ask(payments, Partition(), order_created("ann", 30, order_id))

    async def refund(uow: PaymentsUnitOfWork) -> tuple[Payment, bool] | None:
        asked = new_id()
        return await refund_payment(
            uow, order_id, transfer_id=asked, reason="nowhere", operator="olga", cause=CAUSE
        )

    answers = await asyncio.gather(*(payments.transact(refund) for _ in range(5)))
    assert sorted(answer[1] for answer in answers if answer) == [False] * 4 + [True]
    assert {answer[0].status for answer in answers if answer} == {PaymentStatus.REFUNDED}
    wallet = await payments.read(lambda uow: uow.wallets.get("ann"))
    assert (wallet.balance_minor, wallet.version) == (100, 4)
    statement = "SELECT action, user_id, order_id::text AS order_id, reason, operator FROM operator_actions"
    recorded = await payments.database.run_alone(lambda session: session.run_sql(statement))
    assert [tuple(row) for row in recorded] == [("refund", "ann", order_id, "nowhere", "olga")]
    name, body = await last_message(payments)
    assert name == "PaymentRefunded"

    partition = Partition()
    refunded = payments_v1.PaymentRefunded.model_validate_json(body)
    told = [partition.message(refunded) for _ in range(BURST_MAX + 1)]
    await orders.transact(lambda uow: record_outcomes(uow, told))  # no poison, however many
    assert await rows(orders, "inbox", "outbox", "users") == [BURST_MAX + 1, 0, 0]
    taken = [partition.message(captured("ann", new_id(), 5))]
    with pytest.raises(AssertionError, match="does not exist"):
        await orders.transact(lambda uow: record_outcomes(uow, taken))


async def test_payment_that_took_nothing_or_is_not_there_is_not_refunded(payments: Payments) -> None:
    refused = new_id()
    await ask(payments, Partition(), order_created("ann", 30, refused))
    before = await rows(payments, "outbox", "operator_actions", "transfers")

    async def refund(order_id: str) -> tuple[Payment, bool] | None:
        return await payments.transact(
            lambda uow: refund_payment(
                uow, order_id, transfer_id=new_id(), reason="why", operator="olga", cause=CAUSE
            )
        )

    answer = await refund(refused)
    assert answer is not None
    assert (answer[0].status, answer[1]) == (PaymentStatus.REFUSED, False)
    assert await refund(new_id()) is None
    assert await rows(payments, "outbox", "operator_actions", "transfers") == before


async def test_answer_that_a_newer_version_kept_is_given_without_what_it_added(payments: Payments) -> None:
    request = Request("ann", CAUSE, "key", b"same")
    first = await payments.transact(lambda uow: open_account(uow, request, "USD"))
    added = 'UPDATE requests SET answer = answer || \'{"added_later": {"x": 1}}\''
    await payments.database.run_alone(lambda session: session.run_sql(added))
    again = await payments.transact(lambda uow: open_account(uow, request, "USD"))
    assert (again.outcome, again.replayed) == (first.outcome, True)


async def test_statement_adds_up_page_by_page(payments: Payments) -> None:
    await opened(payments)
    await filled(payments, 100, reference="card-1")
    orders = [order_created("ann", amount) for amount in (30, 20, 10)]
    cancel = orders_v1.OrderCancellationRequested(user_id="ann", order_id=orders[1].order_id, reason="user")
    await ask(payments, Partition(), *orders, cancel)
    rows, before_feed_number = [], 2**62
    while page := await payments.read(lambda uow, b=before_feed_number: uow.ledger.statement("ann", b, 2)):  # type: ignore[misc]
        rows += page
        before_feed_number = page[-1].feed_number
    told = [(row.kind, row.amount_minor, row.balance_minor, row.reference) for row in reversed(rows)]
    assert told == [
        ("top_up", 100, 100, "card-1"),
        ("capture", -30, 70, None),
        ("capture", -20, 50, None),
        ("capture", -10, 40, None),
        ("refund", 20, 60, None),
    ]


async def test_reference_is_used_once_by_each_user(payments: Payments) -> None:
    bob = Request("bob", CAUSE)
    await payments.transact(lambda uow: open_account(uow, bob, "USD"))
    await opened(payments)
    for expected in (None, "reference-used"):
        assert code(await filled(payments, 5, reference="r")) == expected
        theirs = await payments.transact(
            lambda uow: top_up_account(uow, bob, 5, transfer_id=new_id(), reference="r")
        )
        assert code(theirs) == expected


async def test_two_thousand_orders_spend_the_last_unit_once(payments: Payments) -> None:
    answers = await asyncio.gather(*(opened(payments) for _ in range(50)))
    assert sorted(code(answer) or "" for answer in answers) == ["", *["account-exists"] * 49]
    await filled(payments, 1)
    partition = Partition()
    messages = [partition.message(order_created("ann", 1)) for _ in range(2_000)]
    for start in range(0, 2_000, 500):
        batch = messages[start : start + 500]
        await payments.transact(lambda uow, b=batch: settle_orders(uow, b))  # type: ignore[misc]
    unsent = await payments.database.transact(lambda session: read_unsent(session, 10_000))
    types = [row.message.type.rsplit(".", 1)[1] for row in unsent]
    assert (types.count("PaymentCaptured"), types.count("PaymentRefused")) == (1, 1_999)
    reasons = {
        row.message.body.split('"reason":')[1] for row in unsent if "PaymentRefused" in row.message.type
    }
    assert reasons == {'"insufficient_funds"}'}
