"""Messages and databases as tests need them."""

import itertools
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

import uuid_utils

from eshop.contracts import orders_v1, payments_v1
from eshop.contracts.bodies import Body
from eshop.contracts.envelope import Envelope
from eshop.contracts.messages import Message, Origin, schema_of
from eshop.handlers.announce import Cause
from eshop.handlers.orders import PlaceOrder
from eshop.store.database import Database, Session
from eshop.store.migrate import migrate
from eshop.store.outbox_notifier import OutboxNotifier
from eshop.store.retention import Retention
from eshop.store.unit_of_work import Store

U = TypeVar("U")
NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
CAUSE = Cause("correlation", "causation")


def new_id() -> str:
    """Return a new UUID."""
    return str(uuid_utils.uuid7())


def new_database_url(admin_url: str, service: str) -> str:
    """Return the run-time address of a service's database that does not exist yet."""
    name = f"{service}_{uuid.uuid4().hex[:12]}"
    server = urlsplit(admin_url)
    app_url = server._replace(netloc=f"{name}_app:secret@{server.hostname}:{server.port}", path=f"/{name}")
    return urlunsplit(app_url)


@asynccontextmanager
async def migrated_store(
    admin_url: str, service: str, unit: Callable[[Session, OutboxNotifier], U]
) -> AsyncIterator[Store[U]]:
    """Yield the store of a new database."""
    url = new_database_url(admin_url, service)
    migrate(service, url, admin_url)
    database = Database(url, "eshop-test")
    await database.open()
    try:
        yield Store(database, unit)
    finally:
        await database.close()


async def remove_all_expired(database: Database) -> None:
    """Have retention remove all that it may, as a process that looks again after a year."""
    clock = [0.0]
    retention = Retention(database, clock=lambda: clock[0])
    await retention.remove_expired()
    clock[0] += 365 * 86_400
    await retention.remove_expired()


class Partition:
    """Gives messages consecutive offsets, as a partition does."""

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self._offsets = itertools.count()

    def message(self, body: Body, message_id: str | None = None) -> Message:
        """Return the body as a message read from the next offset."""
        schema = schema_of(body)
        envelope = Envelope(
            message_id=message_id or new_id(),
            type=schema.type,
            source=f"eshop/{schema.service}",
            dataschema=schema.dataschema,
            time=NOW,
            correlation_id="correlation",
            causation_id="causation",
        )
        return Message(envelope, body, Origin(schema.topic.name, self.number, next(self._offsets)))

    def repeated(self, message: Message) -> Message:
        """Return the same message as the relay publishes it again: at the next offset."""
        return Message(
            message.envelope, message.body, Origin(message.origin.topic, self.number, next(self._offsets))
        )


def order_created(
    user_id: str, amount_minor: int, order_id: str | None = None, currency: str = "USD"
) -> orders_v1.OrderCreated:
    """Return an event of a new order."""
    return orders_v1.OrderCreated(
        user_id=user_id,
        order_id=order_id or new_id(),
        amount_minor=amount_minor,
        currency=currency,
        version=1,
        feed_number=1,
        pay_before=NOW,
    )


def captured(user_id: str, order_id: str, amount_minor: int) -> payments_v1.PaymentCaptured:
    """Return an event of a paid order."""
    return payments_v1.PaymentCaptured(
        user_id=user_id,
        order_id=order_id,
        amount_minor=amount_minor,
        currency="USD",
        balance_minor=0,
        version=3,
        feed_number=3,
    )


def place_order(
    user_id: str, amount_minor: int = 5, key: str | None = None, fingerprint: bytes = b"same"
) -> PlaceOrder:
    """Return a request for an order."""
    return PlaceOrder(
        order_id=new_id(),
        user_id=user_id,
        amount_minor=amount_minor,
        currency="USD",
        description="",
        items_json="[]",
        idempotency_key=key,
        fingerprint=fingerprint if key else None,
        cause=CAUSE,
    )
