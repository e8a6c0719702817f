"""The topics: the only module that names them. Their services are in `services.py`.

Every topic is keyed by the user id, so that all events of a user are in one partition, in order.

See docs/adr/0002-partition-key-is-the-user.md.
"""

from dataclasses import dataclass

DAY_MS = 24 * 60 * 60 * 1000
#: Adding partitions later moves users to others and needs a drained system: so there are plenty.
PARTITIONS = 12


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic's properties on the broker. ``retention_ms`` counts by the broker's own clock."""

    name: str
    description: str
    messages: tuple[str, ...]
    partitions: int = PARTITIONS
    retention_ms: int = 7 * DAY_MS
    segment_ms: int = 60 * 60 * 1000

    @property
    def config(self) -> dict[str, str]:
        """The broker's settings of the topic."""
        return {
            "cleanup.policy": "delete",
            "retention.ms": str(self.retention_ms),
            "segment.ms": str(self.segment_ms),
            "message.timestamp.type": "LogAppendTime",
        }


ORDERS_EVENTS = Topic(
    "eshop.orders.events.v1",
    "What happened to orders, and requests for their cancellation",
    ("OrderCreated", "OrderCancellationRequested", "OrderFinished", "OrderCancelled"),
)
PAYMENTS_EVENTS = Topic(
    "eshop.payments.events.v1",
    "What happened to accounts and to the payment of orders",
    (
        "AccountOpened",
        "AccountToppedUp",
        "AccountClosed",
        "AccountFrozen",
        "AccountUnfrozen",
        "PaymentCaptured",
        "PaymentRefused",
        "PaymentRefunded",
    ),
)
ORDERS_DEAD_LETTERS = Topic(
    "eshop.orders.dead-letters.v1", "Messages the orders service could never handle", ("DeadLetterParked",)
)
PAYMENTS_DEAD_LETTERS = Topic(
    "eshop.payments.dead-letters.v1",
    "Messages the payments service could never handle",
    ("DeadLetterParked",),
)
