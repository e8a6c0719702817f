"""Messages of the orders service, version 1. Only optional fields may still be added."""

from eshop.contracts.bodies import AmountMinor, Body, Currency, Moment, Ordinal, ParkedMessage, UuidText
from eshop.contracts.statuses import Reason, RequestedReason


class OrderCreated(Body):
    """An order was accepted and waits for its payment. ``pay_before`` is for people: no code acts on it."""

    order_id: UuidText
    amount_minor: AmountMinor
    currency: Currency
    version: Ordinal
    feed_number: Ordinal
    pay_before: Moment


class OrderCancellationRequested(Body):
    """A cancellation is requested: by the user, by an operator, or by the deadline task, which repeats it."""

    order_id: UuidText
    reason: RequestedReason


class OrderFinished(Body):
    """The order is paid."""

    order_id: UuidText
    amount_minor: AmountMinor
    currency: Currency
    version: Ordinal
    feed_number: Ordinal


class OrderCancelled(Body):
    """The order has ended, and its user is not charged."""

    order_id: UuidText
    amount_minor: AmountMinor
    currency: Currency
    reason: Reason
    version: Ordinal
    feed_number: Ordinal


class DeadLetterParked(ParkedMessage):
    """The orders service parked a message."""
