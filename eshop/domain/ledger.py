"""The ledger: transfers whose legs sum to zero. Rows are only ever added."""

from dataclasses import dataclass
from enum import StrEnum

from eshop.domain.money import assert_amount


class LedgerAccount(StrEnum):
    """The account of a leg. Only wallets have a balance row: a row for sales would serialise payments."""

    WALLET = "wallet"
    EXTERNAL_FUNDS = "external_funds"
    SALES = "sales"
    REFUNDS = "refunds"


class TransferKind(StrEnum):
    """Why money moved."""

    TOP_UP = "top_up"
    CAPTURE = "capture"
    REFUND = "refund"


#: Source and destination of the money, by kind.
_ROUTES = {
    TransferKind.TOP_UP: (LedgerAccount.EXTERNAL_FUNDS, LedgerAccount.WALLET),
    TransferKind.CAPTURE: (LedgerAccount.WALLET, LedgerAccount.SALES),
    TransferKind.REFUND: (LedgerAccount.REFUNDS, LedgerAccount.WALLET),
}


@dataclass(frozen=True, slots=True)
class Leg:
    """One side of a transfer, in minor units: negative leaves the account, positive enters it."""

    account: LedgerAccount
    amount_minor: int


@dataclass(frozen=True, slots=True)
class Transfer:
    """Money moved at once between accounts. ``transfer_id`` is the id of the cause."""

    transfer_id: str
    kind: TransferKind
    user_id: str
    currency: str
    legs: tuple[Leg, ...]
    order_id: str | None = None
    reference: str | None = None

    def __post_init__(self) -> None:
        assert sum(leg.amount_minor for leg in self.legs) == 0, "the legs of a transfer sum to zero"

    @property
    def wallet_change_minor(self) -> int:
        """The amount that the transfer adds to the user's wallet."""
        return sum(leg.amount_minor for leg in self.legs if leg.account is LedgerAccount.WALLET)


def transfer(
    kind: TransferKind,
    amount_minor: int,
    *,
    transfer_id: str,
    user_id: str,
    currency: str,
    order_id: str | None = None,
    reference: str | None = None,
) -> Transfer:
    """Return the transfer that a kind prescribes for an amount."""
    assert_amount(amount_minor)
    source, target = _ROUTES[kind]
    legs = (Leg(source, -amount_minor), Leg(target, amount_minor))
    return Transfer(transfer_id, kind, user_id, currency, legs, order_id, reference)
