"""An order's status. Only decisions of payments change it."""

from dataclasses import dataclass, replace
from enum import StrEnum

from eshop.domain.money import assert_amount, assert_currency


class PaymentOutcome(StrEnum):
    """A decision of payments about an order, as the orders service sees it."""

    CAPTURED = "captured"
    REFUSED = "refused"
    REFUNDED = "refunded"


class OrderStatus(StrEnum):
    """Where an order stands.

    ::

        (none)   --create-->  NEW
        NEW      --captured-->  FINISHED
        NEW      --refused-->   CANCELLED
        NEW      --refunded-->  CANCELLED   the capture itself was never heard of
        FINISHED --refunded-->  CANCELLED

    Repeated answers change nothing. A refusal of what was captured can't be.
    """

    NEW = "NEW"
    FINISHED = "FINISHED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True)
class Order:
    """An order as far as its life goes. ``version`` starts at 1 and grows by 1 with every change."""

    order_id: str
    user_id: str
    amount_minor: int
    currency: str
    status: OrderStatus = OrderStatus.NEW
    reason: str | None = None
    version: int = 1

    def __post_init__(self) -> None:
        assert_amount(self.amount_minor)
        assert_currency(self.currency)
        assert (self.reason is not None) == (self.status is OrderStatus.CANCELLED), (
            "a cancelled order, and only that, has a reason"
        )


def record_outcome(order: Order, outcome: PaymentOutcome, reason: str | None) -> Order:
    """Return the order after a decision of payments: the same order, if nothing changes."""
    match order.status, outcome:
        case OrderStatus.NEW, PaymentOutcome.CAPTURED:
            return _moved(order, OrderStatus.FINISHED, None)
        case OrderStatus.NEW, PaymentOutcome.REFUSED | PaymentOutcome.REFUNDED:
            return _moved(order, OrderStatus.CANCELLED, reason)
        case OrderStatus.FINISHED, PaymentOutcome.REFUNDED:
            return _moved(order, OrderStatus.CANCELLED, reason)
        case OrderStatus.FINISHED, PaymentOutcome.REFUSED:
            raise AssertionError(f"order {order.order_id} was paid, and now its payment is refused")
        case _:
            return order


def _moved(order: Order, status: OrderStatus, reason: str | None) -> Order:
    return replace(order, status=status, reason=reason, version=order.version + 1)
