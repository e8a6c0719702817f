"""Payments: every state answers every message, and no money appears or vanishes."""

import pytest

from eshop.domain.ledger import LedgerAccount, Leg, Transfer, TransferKind
from eshop.domain.payment import CancelPayment, Payment, PaymentStatus, PayOrder, settle
from eshop.domain.wallet import Wallet

ORDER = PayOrder("order", "ann", 70, "USD")
CANCEL = CancelPayment("order", "ann", "user")
WALLET = Wallet("ann", version=3, balance_minor=100, currency="USD")
CAPTURED = Payment("order", "ann", PaymentStatus.CAPTURED, 70, "USD", None, 4, 30)
REFUSED = Payment("order", "ann", PaymentStatus.REFUSED, 70, "USD", "insufficient_funds")
TOMBSTONE = Payment("order", "ann", PaymentStatus.REFUSED, reason="timeout")
REFUNDED = Payment("order", "ann", PaymentStatus.REFUNDED, 70, "USD", "user", 5, 100)


def test_order_within_the_balance_is_captured() -> None:
    decided = settle(WALLET, None, ORDER, "t")
    assert decided.wallet == Wallet("ann", 4, 30, "USD")
    assert decided.payment == CAPTURED
    assert decided.transfer is not None
    assert decided.transfer.legs == (Leg(LedgerAccount.WALLET, -70), Leg(LedgerAccount.SALES, 70))


@pytest.mark.parametrize(
    ("wallet", "reason"),
    [
        (Wallet("ann"), "no_account"),
        (Wallet("ann", 1, 0, "USD"), "insufficient_funds"),
        (Wallet("ann", 2, 69, "USD"), "insufficient_funds"),
        (Wallet("ann", 2, 100, "EUR"), "currency_mismatch"),
        (Wallet("ann", 2, 100, "USD", is_frozen=True), "account_frozen"),
        (Wallet("ann", 2, 0, "USD", is_closed=True), "no_account"),
    ],
)
def test_order_that_cannot_be_paid_is_refused_and_moves_nothing(wallet: Wallet, reason: str) -> None:
    decided = settle(wallet, None, ORDER, "t")
    assert decided.wallet is wallet
    assert decided.transfer is None
    assert (decided.payment.status, decided.payment.reason) == (PaymentStatus.REFUSED, reason)


def test_whole_balance_can_be_spent() -> None:
    assert settle(Wallet("ann", 2, 70, "USD"), None, ORDER, "t").wallet.balance_minor == 0


def test_cancellation_of_a_captured_payment_gives_the_money_back() -> None:
    wallet = Wallet("ann", 4, 30, "USD")
    decided = settle(wallet, CAPTURED, CANCEL, "t")
    assert decided.wallet == Wallet("ann", 5, 100, "USD")
    assert decided.payment == REFUNDED
    assert decided.transfer is not None
    assert decided.transfer.kind is TransferKind.REFUND


def test_cancellation_of_an_unknown_order_leaves_a_tombstone_that_no_late_order_passes() -> None:
    decided = settle(WALLET, None, CancelPayment("order", "ann", "timeout"), "t")
    assert decided.payment == TOMBSTONE
    late = settle(WALLET, decided.payment, ORDER, "t")
    assert (late.wallet, late.payment, late.transfer) == (WALLET, TOMBSTONE, None)


@pytest.mark.parametrize(
    ("payment", "message"),
    [
        (CAPTURED, ORDER),
        (REFUSED, ORDER),
        (REFUSED, CANCEL),
        (TOMBSTONE, CANCEL),
        (REFUNDED, ORDER),
        (REFUNDED, CANCEL),
    ],
)
def test_repeated_question_changes_nothing(payment: Payment, message: PayOrder | CancelPayment) -> None:
    decided = settle(WALLET, payment, message, "t")
    assert (decided.wallet, decided.payment, decided.transfer) == (WALLET, payment, None)


def test_payment_is_not_decided_on_another_users_wallet() -> None:
    with pytest.raises(AssertionError, match="own user"):
        settle(Wallet("bob", 1, 100, "USD"), None, ORDER, "t")


def test_transfer_whose_legs_do_not_sum_to_zero_cannot_be_made() -> None:
    with pytest.raises(AssertionError, match="sum to zero"):
        Transfer("t", TransferKind.TOP_UP, "ann", "USD", (Leg(LedgerAccount.WALLET, 1),))
