"""A user's wallet: one per user, in one currency, topped up, spent, never below zero."""

from dataclasses import dataclass, replace

from eshop.domain.ledger import Transfer, TransferKind, transfer
from eshop.domain.money import BALANCE_MINOR_MAX, TOPPED_UP_MINOR_MAX, assert_currency
from eshop.domain.refusal import Refusal


@dataclass(frozen=True, slots=True)
class Wallet:
    """A user's money, or, before its first opening, the place where it will be.

    ::

        (none)        --open-->      OPEN
        OPEN          --close-->     CLOSED          only when empty
        OPEN          --freeze-->    FROZEN
        FROZEN        --unfreeze-->  OPEN
        FROZEN        --close-->     CLOSED_FROZEN   only when empty
        CLOSED        --open-->      OPEN            in the currency it always had
        CLOSED        --refund-->    OPEN            an order paid before is cancelled
        CLOSED_FROZEN --open-->      FROZEN
        CLOSED_FROZEN --refund-->    FROZEN

    Every other message leaves it where it is, or is refused.

    ``version`` counts the wallet's changes and is the user's feed number. ``topped_up_minor`` is all that
    ever came in from outside: it bounds every other sum.
    """

    user_id: str
    version: int = 0
    balance_minor: int = 0
    currency: str | None = None
    topped_up_minor: int = 0
    is_closed: bool = False
    is_frozen: bool = False

    def __post_init__(self) -> None:
        assert self.balance_minor >= 0, "a wallet never goes below zero"
        assert self.balance_minor == 0 or self.is_open, "only an open wallet holds money"

    @property
    def is_open(self) -> bool:
        """Whether the user has an account."""
        return self.currency is not None and not self.is_closed


def open_wallet(wallet: Wallet, currency: str) -> Wallet | Refusal:
    """Open the user's only account, or reopen it in its own currency."""
    assert_currency(currency)
    if wallet.is_open:
        return Refusal("account-exists", "the user has an account already")
    if wallet.currency not in (None, currency):
        return Refusal("currency-mismatch", f"the user's account is in {wallet.currency}")
    return replace(wallet, version=wallet.version + 1, currency=currency, is_closed=False)


def close_wallet(wallet: Wallet) -> Wallet | Refusal:
    """Close an empty account. A later refund reopens it."""
    if not wallet.is_open:
        return _no_account()
    if wallet.balance_minor > 0:
        return Refusal("account-not-empty", "there is money in the account")
    return replace(wallet, version=wallet.version + 1, is_closed=True)


def set_frozen(wallet: Wallet, is_frozen: bool) -> Wallet | Refusal:
    """Freeze an account, so that its new orders are refused, or unfreeze it. Safe to repeat."""
    if not wallet.is_open:
        return _no_account()
    if wallet.is_frozen is is_frozen:
        return wallet
    return replace(wallet, version=wallet.version + 1, is_frozen=is_frozen)


def top_up(
    wallet: Wallet, amount_minor: int, *, transfer_id: str, reference: str | None
) -> tuple[Wallet, Transfer] | Refusal:
    """Add money from outside."""
    if wallet.currency is None or not wallet.is_open:
        return _no_account()
    topped_up_minor = wallet.topped_up_minor + amount_minor
    if wallet.balance_minor + amount_minor > BALANCE_MINOR_MAX or topped_up_minor > TOPPED_UP_MINOR_MAX:
        return Refusal("balance-too-large", f"a wallet holds at most {BALANCE_MINOR_MAX} minor units")
    moved = transfer(
        TransferKind.TOP_UP,
        amount_minor,
        transfer_id=transfer_id,
        user_id=wallet.user_id,
        currency=wallet.currency,
        reference=reference,
    )
    return replace(apply(wallet, moved), topped_up_minor=topped_up_minor), moved


def apply(wallet: Wallet, moved: Transfer) -> Wallet:
    """Return the wallet after a transfer. Incoming money reopens a closed wallet."""
    assert moved.user_id == wallet.user_id, "a transfer changes its own user's wallet"
    assert moved.currency == wallet.currency, "a transfer is in the wallet's currency"
    return replace(
        wallet,
        version=wallet.version + 1,
        balance_minor=wallet.balance_minor + moved.wallet_change_minor,
        is_closed=wallet.is_closed and moved.wallet_change_minor <= 0,
    )


def _no_account() -> Refusal:
    return Refusal("no-account", "the user has no account")
