"""The commands of the payments service: open and fill wallets, and decide every order's payment once.

See docs/adr/0009-closing-freezing-refunding.md.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

from eshop.contracts import orders_v1, payments_v1
from eshop.contracts.bodies import Body
from eshop.contracts.messages import Message
from eshop.domain.ledger import Transfer
from eshop.domain.payment import CancelPayment, Payment, PaymentStatus, PayOrder, Settlement, settle
from eshop.domain.refusal import Refusal
from eshop.domain.wallet import Wallet, close_wallet, open_wallet, set_frozen, top_up
from eshop.handlers.announce import Cause, outgoing
from eshop.handlers.idempotency import Result, once
from eshop.store.operators import OperatorAction
from eshop.store.requests import RequestKey
from eshop.store.unit_of_work import PaymentsUnitOfWork
from eshop.store.wallets import WalletChange
from eshop.stored import from_stored


async def settle_orders(uow: PaymentsUnitOfWork, messages: Sequence[Message]) -> None:
    """Decide payments: claim, load, fold, record, announce; one transaction, a fixed number of statements.

    Orders of one wallet in a batch are decided in order. The inbox drops a redelivered message; a repeated
    command gets the outcome there is.
    """
    fresh = await uow.inbox.claim(messages)
    commands = [(message, command) for message in fresh if (command := _command(message.body)) is not None]
    if commands:
        await _settle(uow, commands)


def _command(body: Body) -> PayOrder | CancelPayment | None:
    match body:
        case orders_v1.OrderCreated():
            return PayOrder(body.order_id, body.user_id, body.amount_minor, body.currency)
        case orders_v1.OrderCancellationRequested():
            return CancelPayment(body.order_id, body.user_id, body.reason)
        case _:
            return None  # orders tells others how it ended; payments knows


async def _settle(
    uow: PaymentsUnitOfWork, commands: Sequence[tuple[Message, PayOrder | CancelPayment]]
) -> None:
    wallets = await uow.wallets.lock(command.user_id for _, command in commands)
    payments = await uow.payments.get(command.order_id for _, command in commands)
    settled: list[Settlement] = []
    for message, command in commands:
        # A message causes one transfer at most, so the transfer has the id of the message.
        decision = settle(
            wallets[command.user_id], payments.get(command.order_id), command, transfer_id=message.message_id
        )
        wallets[command.user_id] = decision.wallet
        payments[command.order_id] = decision.payment
        settled.append(decision)
    await _store(uow, settled, [Cause.of(message) for message, _ in commands])


async def _store(uow: PaymentsUnitOfWork, settled: Sequence[Settlement], causes: Sequence[Cause]) -> None:
    """Store the decisions, of which a later decision follows from the earlier one, and announce each."""
    await uow.ledger.post([decision.transfer for decision in settled if decision.transfer is not None])
    await uow.wallets.save(
        [WalletChange(s.wallet, s.transfer.transfer_id) for s in settled if s.transfer is not None]
    )
    payments = {decision.payment.order_id: decision.payment for decision in settled}
    await uow.payments.save(payments.values())
    await uow.outbox.append(
        [outgoing(_outcome(decision.payment), cause) for decision, cause in zip(settled, causes, strict=True)]
    )


def _outcome(payment: Payment) -> Body:
    """Return the event of a payment's outcome: the same content each time."""
    told = {"user_id": payment.user_id, "order_id": payment.order_id}
    if payment.status is PaymentStatus.REFUSED:
        return payments_v1.PaymentRefused.model_validate({**told, "reason": payment.reason})
    told_of_wallet = told | {
        "amount_minor": payment.amount_minor,
        "currency": payment.currency,
        "balance_minor": payment.balance_after_minor,
        "version": payment.wallet_version,
        "feed_number": payment.wallet_version,
    }
    if payment.status is PaymentStatus.CAPTURED:
        return payments_v1.PaymentCaptured.model_validate(told_of_wallet)
    return payments_v1.PaymentRefunded.model_validate({**told_of_wallet, "reason": payment.reason})


async def refund_payment(
    uow: PaymentsUnitOfWork, order_id: str, *, transfer_id: str, reason: str, operator: str, cause: Cause
) -> tuple[Payment, bool] | None:
    """Refund a capture for an operator, and record the operator and the reason.

    For an order that is unknown to the orders service; a known order is cancelled there. Return the payment
    as it is now and whether money was moved, or None without a decision about the order. A repetition moves
    nothing.
    """
    found = (await uow.payments.get([order_id])).get(order_id)
    if found is None:
        return None
    user_id = found.user_id
    wallet = (await uow.wallets.lock([user_id]))[user_id]
    payment = (await uow.payments.get([order_id]))[order_id]
    if payment.status is not PaymentStatus.CAPTURED:
        return payment, False
    decision = settle(wallet, payment, CancelPayment(order_id, user_id, "refunded"), transfer_id)
    await uow.operators.record(OperatorAction("refund", user_id, order_id, reason, operator))
    await _store(uow, [decision], [cause])
    return decision.payment, True


@dataclass(frozen=True, slots=True)
class Request:
    """The fields of every request: user, cause, idempotency key and fingerprint."""

    user_id: str
    cause: Cause
    idempotency_key: str | None = None
    fingerprint: bytes = b""


@dataclass(frozen=True, slots=True)
class Account:
    """An account, in the form of a result."""

    user_id: str
    balance_minor: int
    currency: str
    version: int
    frozen: bool = False

    @classmethod
    def of(cls, wallet: Wallet) -> "Account":
        """Return an opened wallet in the form of a result."""
        assert wallet.currency is not None, "an account has a currency"
        return cls(wallet.user_id, wallet.balance_minor, wallet.currency, wallet.version, wallet.is_frozen)


async def open_account(uow: PaymentsUnitOfWork, request: Request, currency: str) -> Result[Account]:
    """Open the user's only account, or reopen it. The same request, by its key, gets the same result."""

    async def opened(wallet: Wallet) -> Account | Refusal:
        return await _changed(uow, request, payments_v1.AccountOpened, open_wallet(wallet, currency))

    return await _once_for(uow, request, "open-account", opened, add_missing=True)


async def close_account(uow: PaymentsUnitOfWork, request: Request) -> Result[Account]:
    """Close an empty account. An order that reaches it afterwards is refused with ``no_account``."""

    async def closed(wallet: Wallet) -> Account | Refusal:
        return await _changed(uow, request, payments_v1.AccountClosed, close_wallet(wallet))

    return await _once_for(uow, request, "close-account", closed, add_missing=False)


async def freeze_account(
    uow: PaymentsUnitOfWork, request: Request, is_frozen: bool, *, reason: str, operator: str
) -> Result[Account]:
    """Freeze or unfreeze an account, and record the operator and the reason. A repetition changes nothing."""
    event = payments_v1.AccountFrozen if is_frozen else payments_v1.AccountUnfrozen

    async def frozen(wallet: Wallet) -> Account | Refusal:
        after = set_frozen(wallet, is_frozen)
        if after is wallet:
            return Account.of(wallet)
        if isinstance(after, Wallet):
            verb = "freeze" if is_frozen else "unfreeze"
            await uow.operators.record(OperatorAction(verb, wallet.user_id, None, reason, operator))
        return await _changed(uow, request, event, after)

    return await _once_for(uow, request, "freeze-account", frozen, add_missing=False)


async def top_up_account(
    uow: PaymentsUnitOfWork, request: Request, amount_minor: int, *, transfer_id: str, reference: str | None
) -> Result[Account]:
    """Add money from outside. The same request again, by its key, gets the same result.

    A reference is unique per user; references of other users have no influence.
    """

    async def topped_up(wallet: Wallet) -> Account | Refusal:
        if reference is not None and await uow.ledger.has_reference(wallet.user_id, reference):
            return Refusal("reference-used", "a top-up with this reference was made before")
        decided = top_up(wallet, amount_minor, transfer_id=transfer_id, reference=reference)
        if isinstance(decided, Refusal):
            return decided
        after, moved = decided
        await uow.ledger.post([moved])
        return await _changed(uow, request, payments_v1.AccountToppedUp, after, moved)

    return await _once_for(uow, request, "top-up", topped_up, add_missing=False)


async def _changed(
    uow: PaymentsUnitOfWork,
    request: Request,
    event: type[payments_v1.WalletChanged],
    after: Wallet | Refusal,
    moved: Transfer | None = None,
) -> Account | Refusal:
    """Store a wallet's change and announce it, unless the change was refused."""
    if isinstance(after, Refusal):
        return after
    told = (
        {} if moved is None else {"transfer_id": moved.transfer_id, "amount_minor": moved.wallet_change_minor}
    )
    await uow.wallets.save([WalletChange(after, moved.transfer_id if moved else None)])
    body = event.model_validate(
        {
            "user_id": after.user_id,
            "balance_minor": after.balance_minor,
            "currency": after.currency,
            "version": after.version,
            "feed_number": after.version,
            **told,
        }
    )
    await uow.outbox.append([outgoing(body, request.cause)])
    return Account.of(after)


async def _once_for(
    uow: PaymentsUnitOfWork,
    request: Request,
    route: str,
    effect: Callable[[Wallet], Awaitable[Account | Refusal]],
    *,
    add_missing: bool,
) -> Result[Account]:
    """Run the effect on the user's locked wallet, once for a key."""
    locked = await uow.wallets.lock([request.user_id], add_missing=add_missing)
    wallet = locked.get(request.user_id, Wallet(request.user_id))
    key = (
        None
        if request.idempotency_key is None
        else RequestKey(request.user_id, route, request.idempotency_key)
    )
    return await once(
        uow.requests,
        key,
        request.fingerprint,
        lambda: effect(wallet),
        store=asdict,
        restore=partial(from_stored, Account),
    )
