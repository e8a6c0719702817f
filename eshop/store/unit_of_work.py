"""Units of work: one Postgres transaction, with the repositories that a handler may use in it."""

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from eshop.crash_points import crash_point
from eshop.store.database import Database, Session
from eshop.store.dead_letters import DeadLetters
from eshop.store.feed import Feed, orders_feed, wallets_feed
from eshop.store.inbox import Inbox
from eshop.store.ledger import Ledger
from eshop.store.operators import Operators
from eshop.store.orders import Orders
from eshop.store.outbox import Outbox
from eshop.store.outbox_notifier import OutboxNotifier
from eshop.store.payments import Payments
from eshop.store.requests import Requests
from eshop.store.rows import FeedRow, OrderChange, WalletEntry
from eshop.store.timeline import OrderTimeline, PaymentTimeline, TimelineParts
from eshop.store.users import Users
from eshop.store.wallets import Wallets
from eshop.store.watermarks import Watermarks

T = TypeVar("T")
U = TypeVar("U")


class UnitOfWork:
    """A transaction with the parts of every service. Lock order: claims, users, rest, watermarks."""

    consumer: str
    feed: Feed[FeedRow]
    timeline: TimelineParts

    def __init__(self, session: Session, notifier: OutboxNotifier) -> None:
        self.session = session
        self.inbox = Inbox(session, self.consumer)
        self.requests = Requests(session)
        self.operators = Operators(session)
        self.outbox = Outbox(session, notifier)
        self.dead_letters = DeadLetters(session, self.consumer)
        self.watermarks = Watermarks(session, self.consumer)


class OrdersUnitOfWork(UnitOfWork):
    """A transaction of the orders service."""

    consumer = "orders"

    def __init__(self, session: Session, notifier: OutboxNotifier) -> None:
        super().__init__(session, notifier)
        self.users = Users(session)
        self.orders = Orders(session)
        self.feed: Feed[OrderChange] = orders_feed(session)
        self.timeline = OrderTimeline(session, self.consumer)


class PaymentsUnitOfWork(UnitOfWork):
    """A transaction of the payments service."""

    consumer = "payments"

    def __init__(self, session: Session, notifier: OutboxNotifier) -> None:
        super().__init__(session, notifier)
        self.wallets = Wallets(session)
        self.payments = Payments(session)
        self.ledger = Ledger(session)
        self.feed: Feed[WalletEntry] = wallets_feed(session)
        self.timeline = PaymentTimeline(session, self.consumer)


class Store(Generic[U]):
    """A service's database, and how to begin a unit of work on it."""

    def __init__(
        self,
        database: Database,
        unit: Callable[[Session, OutboxNotifier], U],
        notifier: OutboxNotifier | None = None,
        *,
        crash_point: str = "",
    ) -> None:
        """Prepare; ``crash_point`` is reached after each COMMIT."""
        self.database = database
        self.notifier = notifier or OutboxNotifier()
        self._unit = unit
        self._crash_point = crash_point

    async def transact(self, work: Callable[[U], Awaitable[T]]) -> T:
        """Run ``work`` in one transaction; see ``Database.transact``."""
        done = await self.database.transact(lambda session: work(self._unit(session, self.notifier)))
        crash_point(self._crash_point)
        return done

    async def read(self, work: Callable[[U], Awaitable[T]]) -> T:
        """Run ``work``, a single reading statement; see ``Database.run_alone``."""
        return await self.database.run_alone(lambda session: work(self._unit(session, self.notifier)))
