"""The bodies of requests: strict models without coercion and without additional fields."""

from contextlib import suppress
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from eshop.contracts.limits import (
    AMOUNT_MINOR_MAX,
    CURRENCY_PATTERN,
    DESCRIPTION_CHARACTERS_MAX,
    ITEMS_MAX,
    NAME_CHARACTERS_MAX,
    QUANTITY_MAX,
    REFERENCE_CHARACTERS_MAX,
    SKU_CHARACTERS_MAX,
)


def _storable(text: str) -> str:
    """Return text that UTF-8 and Postgres can hold: JSON's escapes can make others."""
    with suppress(UnicodeEncodeError):
        text.encode()
        if "\0" not in text:
            return text
    raise PydanticCustomError("text", "Text should hold neither NUL nor lone surrogates")


Text = Annotated[str, AfterValidator(_storable)]
AmountMinor = Annotated[int, Field(ge=1, le=AMOUNT_MINOR_MAX)]
Currency = Annotated[str, Field(pattern=CURRENCY_PATTERN)]


class Fields(BaseModel):
    """A body of a request. Anything not named is refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class AccountFields(Fields):
    """Opening an account. ``currency`` None: the shop's."""

    currency: Currency | None = None


class TopUpFields(Fields):
    """Money from outside. ``reference`` is the payment provider's name for it; each user may use one once."""

    amount_minor: AmountMinor
    reference: Annotated[Text, Field(min_length=1, max_length=REFERENCE_CHARACTERS_MAX)] | None = None


class ItemFields(Fields):
    """A line of an order."""

    sku: Annotated[Text, Field(min_length=1, max_length=SKU_CHARACTERS_MAX)]
    name: Annotated[Text, Field(max_length=NAME_CHARACTERS_MAX)] = ""
    quantity: Annotated[int, Field(ge=1, le=QUANTITY_MAX)]
    unit_price_minor: Annotated[int, Field(ge=0, le=AMOUNT_MINOR_MAX)]


class OrderFields(Fields):
    """A new order. If there are items, their sum is the amount."""

    amount_minor: AmountMinor
    currency: Currency | None = None
    description: Annotated[Text, Field(max_length=DESCRIPTION_CHARACTERS_MAX)] | None = None
    items: Annotated[list[ItemFields], Field(max_length=ITEMS_MAX)] = Field(default_factory=list)

    @field_validator("items")
    @classmethod
    def _make_the_amount(cls, items: list[ItemFields], info: ValidationInfo) -> list[ItemFields]:
        total = sum(item.quantity * item.unit_price_minor for item in items)
        if items and total != info.data.get("amount_minor", total):
            raise PydanticCustomError("sum", "Items should sum to amount_minor")
        return items
