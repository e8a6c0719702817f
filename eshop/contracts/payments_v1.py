"""Messages of the payments service, version 1. Only optional fields may still be added."""

from eshop.contracts.bodies import AmountMinor, BalanceMinor, Body, Currency, Ordinal, ParkedMessage, UuidText
from eshop.contracts.statuses import Reason, RequestedReason


class WalletChanged(Body):
    """The content of every change of a wallet: the balance after it, and its place in the user's feed."""

    balance_minor: BalanceMinor
    currency: Currency
    version: Ordinal
    feed_number: Ordinal


class AccountOpened(WalletChanged):
    """The user has an empty wallet now."""


class AccountToppedUp(WalletChanged):
    """Money came in from outside."""

    transfer_id: UuidText
    amount_minor: AmountMinor


class AccountClosed(WalletChanged):
    """The user's empty wallet is gone."""


class AccountFrozen(WalletChanged):
    """An operator has the account's new orders refused."""


class AccountUnfrozen(WalletChanged):
    """An operator has lifted the freeze."""


class PaymentCaptured(WalletChanged):
    """The order was paid from the wallet."""

    order_id: UuidText
    amount_minor: AmountMinor


class PaymentRefunded(WalletChanged):
    """A captured payment went back into the wallet."""

    order_id: UuidText
    amount_minor: AmountMinor
    reason: RequestedReason


class PaymentRefused(Body):
    """The order will never be paid. No wallet has changed, so it has no place in the wallet's feed."""

    order_id: UuidText
    reason: Reason


class DeadLetterParked(ParkedMessage):
    """The payments service parked a message."""
