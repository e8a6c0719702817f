"""A user's wallet: opened once, topped up, spent, never below zero."""

from dataclasses import dataclass, replace

from eshop.domain.ledger import Transfer, TransferKind, transfer
from eshop.domain.money import BALANCE_MINOR_MAX, assert_currency
from eshop.domain.refusal import Refusal


@dataclass(frozen=True, slots=True)
class Wallet:
    """A user's money, or, without a currency, the place where it will be.

    ``version`` counts the wallet's changes and is the user's feed number.
    """

    user_id: str
    version: int = 0
    balance_minor: int = 0
    currency: str | None = None

    def __post_init__(self) -> None:
        assert self.balance_minor >= 0, "a wallet never goes below zero"
        assert self.currency is not None or self.balance_minor == 0, "money has a currency"

    @property
    def is_open(self) -> bool:
        """Whether the user has an account."""
        return self.currency is not None


def open_wallet(wallet: Wallet, currency: str) -> Wallet | Refusal:
    """Open the user's only account."""
    assert_currency(currency)
    if wallet.is_open:
        return Refusal("account-exists", "the user has an account already")
    return replace(wallet, version=wallet.version + 1, currency=currency)


def top_up(
    wallet: Wallet, amount_minor: int, *, transfer_id: str, reference: str | None
) -> tuple[Wallet, Transfer] | Refusal:
    """Add money from outside."""
    if wallet.currency is None:
        return Refusal("no-account", "the user has no account")
    if wallet.balance_minor + amount_minor > BALANCE_MINOR_MAX:
        return Refusal("balance-too-large", f"a wallet holds at most {BALANCE_MINOR_MAX} minor units")
    moved = transfer(
        TransferKind.TOP_UP,
        amount_minor,
        transfer_id=transfer_id,
        user_id=wallet.user_id,
        currency=wallet.currency,
        reference=reference,
    )
    return apply(wallet, moved), moved


def apply(wallet: Wallet, moved: Transfer) -> Wallet:
    """Return the wallet after a transfer."""
    assert moved.user_id == wallet.user_id, "a transfer changes its own user's wallet"
    assert moved.currency == wallet.currency, "a transfer is in the wallet's currency"
    return replace(
        wallet,
        version=wallet.version + 1,
        balance_minor=wallet.balance_minor + moved.wallet_change_minor,
    )
