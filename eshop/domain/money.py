"""Money: a whole number of minor units and a currency. There is no float anywhere."""

import re

#: The most that one order or one top-up may be worth.
AMOUNT_MINOR_MAX = 1_000_000_000
#: The most that a top-up may bring a wallet to.
BALANCE_MINOR_MAX = 1_000_000_000_000
#: The most that may ever come into one wallet from outside. Refunds only bring back what captures took, so no
#: sum over a wallet's transfers is larger: 64 bits never overflow, and JSON readers see every number exactly.
TOPPED_UP_MINOR_MAX = 1_000_000_000_000_000

_CURRENCY = re.compile(r"[A-Z]{3}")


def assert_amount(amount_minor: int) -> None:
    """Assert what the edge has validated: a whole amount between 1 and the bound."""
    assert type(amount_minor) is int, "an amount is a whole number of minor units"
    assert 0 < amount_minor <= AMOUNT_MINOR_MAX, "an amount is positive and bounded"


def assert_currency(currency: str) -> None:
    """Assert that the code has the form of ISO 4217."""
    assert _CURRENCY.fullmatch(currency), "a currency is three capital letters"
