"""The payment of an order, decided once. Every state has an answer to every message."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import assert_never

from eshop.domain.ledger import Transfer, TransferKind, transfer
from eshop.domain.wallet import Wallet, apply


class PaymentStatus(StrEnum):
    """Where a payment stands.

    ::

        (none)   --order-->   CAPTURED   enough money in the wallet
        (none)   --order-->   REFUSED    otherwise
        (none)   --cancel-->  REFUSED    a tombstone: the order itself may still arrive, and never debits
        CAPTURED --cancel-->  REFUNDED

    Every other message changes nothing and is answered with the outcome there is.
    """

    CAPTURED = "CAPTURED"
    REFUSED = "REFUSED"
    REFUNDED = "REFUNDED"


@dataclass(frozen=True, slots=True)
class PayOrder:
    """An order wants its payment."""

    order_id: str
    user_id: str
    amount_minor: int
    currency: str


@dataclass(frozen=True, slots=True)
class CancelPayment:
    """An order is to end without being charged; ``reason`` says why."""

    order_id: str
    user_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Payment:
    """A decision about an order.

    ``wallet_version`` and ``balance_after_minor`` are the wallet's right after the payment last changed it:
    the outcome can be announced again with the same content.
    """

    order_id: str
    user_id: str
    status: PaymentStatus
    amount_minor: int | None = None
    currency: str | None = None
    reason: str | None = None
    wallet_version: int | None = None
    balance_after_minor: int | None = None


@dataclass(frozen=True, slots=True)
class Settlement:
    """A decision: the states after it, and the money that moved."""

    wallet: Wallet
    payment: Payment
    transfer: Transfer | None = None


def settle(
    wallet: Wallet, payment: Payment | None, message: PayOrder | CancelPayment, transfer_id: str
) -> Settlement:
    """Decide a command. ``transfer_id`` names the transfer, if there is one."""
    assert wallet.user_id == message.user_id, "an order is paid from its own user's wallet"
    if payment is not None:
        assert payment.user_id == message.user_id, "a payment belongs to its order's user"
        if payment.status is PaymentStatus.CAPTURED and isinstance(message, CancelPayment):
            return _refund(wallet, payment, message.reason, transfer_id)
        return Settlement(wallet, payment)
    match message:
        case PayOrder():
            return _pay(wallet, message, transfer_id)
        case CancelPayment():
            return Settlement(wallet, _refused(message.order_id, message.user_id, message.reason))
        case _:
            assert_never(message)


def _pay(wallet: Wallet, order: PayOrder, transfer_id: str) -> Settlement:
    reason = _why_not(wallet, order)
    if reason is not None:
        refused = _refused(order.order_id, order.user_id, reason)
        return Settlement(wallet, replace(refused, amount_minor=order.amount_minor, currency=order.currency))
    moved = transfer(
        TransferKind.CAPTURE,
        order.amount_minor,
        transfer_id=transfer_id,
        user_id=order.user_id,
        currency=order.currency,
        order_id=order.order_id,
    )
    after = apply(wallet, moved)
    captured = Payment(
        order.order_id,
        order.user_id,
        PaymentStatus.CAPTURED,
        order.amount_minor,
        order.currency,
        wallet_version=after.version,
        balance_after_minor=after.balance_minor,
    )
    return Settlement(after, captured, moved)


def _why_not(wallet: Wallet, order: PayOrder) -> str | None:
    if not wallet.is_open:
        return "no_account"
    if wallet.is_frozen:
        return "account_frozen"
    if wallet.currency != order.currency:
        return "currency_mismatch"
    if wallet.balance_minor < order.amount_minor:
        return "insufficient_funds"
    return None


def _refused(order_id: str, user_id: str, reason: str) -> Payment:
    return Payment(order_id, user_id, PaymentStatus.REFUSED, reason=reason)


def _refund(wallet: Wallet, captured: Payment, reason: str, transfer_id: str) -> Settlement:
    assert captured.amount_minor is not None and captured.currency is not None, "a capture has an amount"  # noqa: PT018
    moved = transfer(
        TransferKind.REFUND,
        captured.amount_minor,
        transfer_id=transfer_id,
        user_id=captured.user_id,
        currency=captured.currency,
        order_id=captured.order_id,
    )
    after = apply(wallet, moved)
    refunded = replace(
        captured,
        status=PaymentStatus.REFUNDED,
        reason=reason,
        wallet_version=after.version,
        balance_after_minor=after.balance_minor,
    )
    return Settlement(after, refunded, moved)
