"""Wallets: opened once, bounded, never below zero."""

import pytest

from eshop.domain.ledger import TransferKind, transfer
from eshop.domain.money import BALANCE_MINOR_MAX, TOPPED_UP_MINOR_MAX
from eshop.domain.refusal import Refusal
from eshop.domain.wallet import Wallet, apply, close_wallet, open_wallet, set_frozen, top_up


def test_wallet_is_opened_once() -> None:
    opened = open_wallet(Wallet("ann"), "USD")
    assert opened == Wallet("ann", 1, 0, "USD")
    again = open_wallet(opened, "USD")
    assert isinstance(again, Refusal)
    assert again.code == "account-exists"


def test_top_up_adds_what_comes_in_from_outside() -> None:
    decided = top_up(Wallet("ann", 1, 5, "USD"), 10, transfer_id="t", reference="r")
    assert not isinstance(decided, Refusal)
    wallet, moved = decided
    assert wallet == Wallet("ann", 2, 15, "USD", topped_up_minor=10)
    assert (moved.wallet_change_minor, moved.reference) == (10, "r")


def test_top_up_without_an_account_is_refused() -> None:
    decided = top_up(Wallet("ann"), 10, transfer_id="t", reference=None)
    assert isinstance(decided, Refusal)
    assert decided.code == "no-account"


def test_top_up_over_the_bound_is_refused() -> None:
    full = Wallet("ann", 1, BALANCE_MINOR_MAX - 9, "USD")
    assert not isinstance(top_up(full, 9, transfer_id="t", reference=None), Refusal)
    decided = top_up(full, 10, transfer_id="t", reference=None)
    assert isinstance(decided, Refusal)
    assert decided.code == "balance-too-large"


def test_wallet_below_zero_cannot_be_made() -> None:
    with pytest.raises(AssertionError, match="below zero"):
        Wallet("ann", 1, -1, "USD")


def code(decided: object) -> str | None:
    """Return the code of a refusal."""
    return decided.code if isinstance(decided, Refusal) else None


def test_no_more_comes_in_over_a_lifetime_than_sums_can_bear() -> None:
    wallet = Wallet("ann", 9, 0, "USD", topped_up_minor=TOPPED_UP_MINOR_MAX - 9)
    assert code(top_up(wallet, 9, transfer_id="t", reference=None)) is None
    assert code(top_up(wallet, 10, transfer_id="t", reference=None)) == "balance-too-large"


def test_only_an_empty_account_is_closed() -> None:
    assert code(close_wallet(Wallet("ann"))) == "no-account"
    assert code(close_wallet(Wallet("ann", 2, 1, "USD"))) == "account-not-empty"
    closed = close_wallet(Wallet("ann", 2, 0, "USD"))
    assert closed == Wallet("ann", 3, 0, "USD", is_closed=True)
    assert code(close_wallet(closed)) == "no-account"
    assert code(top_up(closed, 1, transfer_id="t", reference=None)) == "no-account"


def test_closed_account_opens_again_in_its_own_currency_only() -> None:
    closed = Wallet("ann", 3, 0, "USD", is_closed=True)
    assert code(open_wallet(closed, "EUR")) == "currency-mismatch"
    assert open_wallet(closed, "USD") == Wallet("ann", 4, 0, "USD")


def test_refund_opens_a_closed_account_again() -> None:
    closed = Wallet("ann", 3, 0, "USD", is_closed=True)
    refund = transfer(TransferKind.REFUND, 7, transfer_id="t", user_id="ann", currency="USD", order_id="o")
    assert apply(closed, refund) == Wallet("ann", 4, 7, "USD")


def test_freezing_twice_is_freezing_once() -> None:
    frozen = set_frozen(Wallet("ann", 2, 5, "USD"), True)
    assert frozen == Wallet("ann", 3, 5, "USD", is_frozen=True)
    assert set_frozen(frozen, True) is frozen
    assert set_frozen(frozen, False) == Wallet("ann", 4, 5, "USD")
    assert code(set_frozen(Wallet("ann"), True)) == "no-account"


def test_closing_does_not_lift_a_freeze() -> None:
    closed = close_wallet(Wallet("ann", 2, 0, "USD", is_frozen=True))
    assert isinstance(closed, Wallet)
    again = open_wallet(closed, "USD")
    assert isinstance(again, Wallet)
    assert again.is_frozen
