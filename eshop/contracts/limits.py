"""The bounds of what clients and services may send, in one place. The domain and the audit keep their own."""

#: The largest amount of an order or a top-up, in minor units.
AMOUNT_MINOR_MAX = 1_000_000_000
CURRENCY_PATTERN = r"^[A-Z]{3}$"
USER_ID_CHARACTERS_MAX = 128
DESCRIPTION_CHARACTERS_MAX = 500
REFERENCE_CHARACTERS_MAX = 255
SKU_CHARACTERS_MAX = 64
NAME_CHARACTERS_MAX = 200
QUANTITY_MAX = 1_000_000
ITEMS_MAX = 100
#: Rows of a page of a list.
PAGE_MAX = 100
IDEMPOTENCY_KEY_CHARACTERS_MAX = 255
