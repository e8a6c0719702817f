"""Orders: only what payments decided moves them, and every pair of state and outcome has an answer."""

import itertools

import pytest

from eshop.domain.order import Order, OrderStatus, PaymentOutcome, record_outcome

NEW = Order("order", "ann", 70, "USD")
FINISHED = Order("order", "ann", 70, "USD", OrderStatus.FINISHED, None, 2)
CANCELLED = Order("order", "ann", 70, "USD", OrderStatus.CANCELLED, "user", 2)

TABLE = {
    (NEW, PaymentOutcome.CAPTURED): (OrderStatus.FINISHED, None, 2),
    (NEW, PaymentOutcome.REFUSED): (OrderStatus.CANCELLED, "why", 2),
    (NEW, PaymentOutcome.REFUNDED): (OrderStatus.CANCELLED, "why", 2),
    (FINISHED, PaymentOutcome.CAPTURED): (OrderStatus.FINISHED, None, 2),
    (FINISHED, PaymentOutcome.REFUNDED): (OrderStatus.CANCELLED, "why", 3),
    (CANCELLED, PaymentOutcome.CAPTURED): (OrderStatus.CANCELLED, "user", 2),
    (CANCELLED, PaymentOutcome.REFUSED): (OrderStatus.CANCELLED, "user", 2),
    (CANCELLED, PaymentOutcome.REFUNDED): (OrderStatus.CANCELLED, "user", 2),
}


@pytest.mark.parametrize(("before", "outcome"), TABLE)
def test_order_moves_as_the_table_says(before: Order, outcome: PaymentOutcome) -> None:
    after = record_outcome(before, outcome, None if outcome is PaymentOutcome.CAPTURED else "why")
    assert (after.status, after.reason, after.version) == TABLE[before, outcome]


def test_refusal_of_a_paid_order_is_a_broken_promise() -> None:
    with pytest.raises(AssertionError, match="refused"):
        record_outcome(FINISHED, PaymentOutcome.REFUSED, "why")


def test_table_is_total() -> None:
    impossible = {(FINISHED, PaymentOutcome.REFUSED)}
    assert set(itertools.product((NEW, FINISHED, CANCELLED), PaymentOutcome)) == set(TABLE) | impossible


@pytest.mark.parametrize("amount_minor", [0, -1, 1_000_000_001, 2**63])
def test_order_of_an_impossible_amount_cannot_be_made(amount_minor: int) -> None:
    with pytest.raises(AssertionError):
        Order("order", "ann", amount_minor, "USD")


def test_only_a_cancelled_order_has_a_reason() -> None:
    with pytest.raises(AssertionError, match="reason"):
        Order("order", "ann", 1, "USD", OrderStatus.CANCELLED)
