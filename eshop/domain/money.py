"""Money: a whole number of minor units and a currency. There is no float anywhere."""

import re

#: The largest amount of an order or a top-up.
AMOUNT_MINOR_MAX = 1_000_000_000
#: The largest balance after a top-up.
BALANCE_MINOR_MAX = 1_000_000_000_000
#: The largest sum of all top-ups of a wallet. Refunds only return captured money, so no sum over a wallet's
#: transfers is larger: 64 bits never overflow, and JSON readers see every number exactly.
TOPPED_UP_MINOR_MAX = 1_000_000_000_000_000

_CURRENCY = re.compile(r"[A-Z]{3}")


def assert_amount(amount_minor: int) -> None:
    """Assert the bounds that the edge has validated: a whole amount between 1 and the maximum."""
    assert type(amount_minor) is int, "an amount is a whole number of minor units"
    assert 0 < amount_minor <= AMOUNT_MINOR_MAX, "an amount is positive and bounded"


def assert_currency(currency: str) -> None:
    """Assert that the code has the form of ISO 4217."""
    assert _CURRENCY.fullmatch(currency), "a currency is three capital letters"
