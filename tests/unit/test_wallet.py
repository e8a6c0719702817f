"""Wallets: opened once, bounded, never below zero."""

import pytest

from eshop.domain.money import BALANCE_MINOR_MAX
from eshop.domain.refusal import Refusal
from eshop.domain.wallet import Wallet, open_wallet, top_up


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
    assert wallet == Wallet("ann", 2, 15, "USD")
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
