"""For every sequence: money is neither made nor lost, however messages are cut into batches."""

import asyncio
import itertools
from dataclasses import dataclass
from functools import partial

import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eshop.cluster.embedded import EmbeddedCluster
from eshop.contracts import orders_v1
from eshop.contracts.bodies import Body
from eshop.contracts.messages import Message
from eshop.domain.ledger import LedgerAccount, Transfer
from eshop.domain.payment import CancelPayment, Payment, PaymentStatus, PayOrder, settle
from eshop.domain.wallet import Wallet, open_wallet, top_up
from eshop.handlers.payments import Request, open_account, settle_orders, top_up_account
from eshop.store.database import Database, Session
from eshop.store.migrate import migrate, on_database
from eshop.store.unit_of_work import PaymentsUnitOfWork, Store
from tests.support.builders import CAUSE, Partition, new_database_url, new_id, order_created

USERS = ("ann", "bob")
ORDERS = {user: [new_id() for _ in range(3)] for user in USERS}
BALANCE = 100


@dataclass(frozen=True)
class Asked:
    """A question to payments about one of few orders, so that they meet."""

    user_id: str
    order_id: str
    amount_minor: int | None  # None asks for the cancellation

    def to_domain(self) -> PayOrder | CancelPayment:
        """Return the question as the domain hears it."""
        if self.amount_minor is None:
            return CancelPayment(self.order_id, self.user_id, "user")
        return PayOrder(self.order_id, self.user_id, self.amount_minor, "USD")

    def to_body(self) -> Body:
        """Return the question as a topic has it."""
        if self.amount_minor is None:
            return orders_v1.OrderCancellationRequested(
                user_id=self.user_id, order_id=self.order_id, reason="user"
            )
        return order_created(self.user_id, self.amount_minor, self.order_id)


def questions() -> st.SearchStrategy[Asked]:
    """Return a strategy for questions of two users about three orders each."""
    return st.sampled_from(USERS).flatmap(
        lambda user: st.builds(
            Asked, st.just(user), st.sampled_from(ORDERS[user]), st.none() | st.integers(1, BALANCE)
        )
    )


def rich_wallet(user_id: str) -> tuple[Wallet, Transfer]:
    """Return an open wallet with money, and the transfer that filled it."""
    opened = open_wallet(Wallet(user_id), "USD")
    assert isinstance(opened, Wallet)
    filled = top_up(opened, BALANCE, transfer_id=f"fill-{user_id}", reference=None)
    assert isinstance(filled, tuple)
    return filled


@given(st.lists(questions(), max_size=40))
def test_money_is_neither_made_nor_lost(asked: list[Asked]) -> None:
    filled = {user: rich_wallet(user) for user in USERS}
    wallets = {user: wallet for user, (wallet, _) in filled.items()}
    transfers = [moved for _, moved in filled.values()]
    payments: dict[str, Payment] = {}
    for number, question in enumerate(asked):
        decided = settle(
            wallets[question.user_id], payments.get(question.order_id), question.to_domain(), str(number)
        )
        wallets[question.user_id] = decided.wallet
        payments[question.order_id] = decided.payment
        transfers += [decided.transfer] if decided.transfer else []
    for user, wallet in wallets.items():
        assert wallet.balance_minor == sum(t.wallet_change_minor for t in transfers if t.user_id == user)
    sold = sum(leg.amount_minor for t in transfers for leg in t.legs if leg.account is LedgerAccount.SALES)
    captures = [p.amount_minor or 0 for p in payments.values() if p.status is not PaymentStatus.REFUSED]
    assert sold == sum(captures)
    kinds = [(t.order_id, t.kind) for t in transfers if t.order_id]
    assert len(kinds) == len(set(kinds)), "an order is captured once and refunded once at the most"


@pytest.fixture(scope="module")
def database_url(cluster: EmbeddedCluster) -> str:
    """A payments database that the test empties by itself."""
    url = new_database_url(cluster.postgres_admin_url, "payments")
    migrate("payments", url, cluster.postgres_admin_url)
    return url


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(asked=st.lists(questions(), min_size=1, max_size=25), data=st.data())
def test_any_batches_and_any_redelivery_end_as_one_by_one(
    cluster: EmbeddedCluster, database_url: str, asked: list[Asked], data: st.DataObject
) -> None:
    partition = Partition()
    messages = [partition.message(question.to_body()) for question in asked]
    cuts = sorted(data.draw(st.sets(st.integers(0, len(messages)), max_size=5)) | {0, len(messages)})
    batches = [messages[start:end] for start, end in itertools.pairwise(cuts)]
    # A redelivery goes back to where the group had committed, and goes on from there.
    again = data.draw(st.integers(0, len(messages) - 1))
    one_by_one = [[message] for message in messages]
    admin_url = on_database(cluster.postgres_admin_url, database_url)
    expected = asyncio.run(end_of(database_url, admin_url, one_by_one))
    assert asyncio.run(end_of(database_url, admin_url, [*batches, messages[again:]])) == expected


#: What must be the same in the end, whichever way led there.
ENDS = (
    "SELECT user_id, feed_number, balance_minor, currency FROM wallets ORDER BY 1",
    "SELECT order_id, status, reason, wallet_version, balance_after_minor FROM payments ORDER BY 1",
    "SELECT user_id, feed_number, balance_minor FROM wallet_history ORDER BY 1, 2",
    """SELECT order_id, kind, account, amount_minor FROM legs JOIN transfers USING (transfer_id)
        WHERE order_id IS NOT NULL ORDER BY 1, 2, 3""",
    "SELECT type, body FROM outbox WHERE type LIKE '%.Payment%' ORDER BY user_id, outbox_id",
    "SELECT partition, next_offset FROM watermarks",
)


async def end_of(url: str, admin_url: str, batches: list[list[Message]]) -> list[list[object]]:
    """Empty the database, handle the batches, and return where that ends."""
    empty(admin_url)
    database = Database(url, "eshop-test")
    await database.open()
    store = Store(database, PaymentsUnitOfWork)
    try:
        for user in USERS:
            await fill(store, user)
        for batch in batches:
            await store.transact(partial(settle_orders, messages=batch))
        return [await database.transact(partial(Session.run_sql, text=query)) for query in ENDS]
    finally:
        await database.close()


async def fill(store: Store[PaymentsUnitOfWork], user_id: str) -> None:
    """Give the user an account with money."""
    request = Request(user_id, CAUSE)
    await store.transact(partial(open_account, request=request, currency="USD"))
    top_up = partial(
        top_up_account, request=request, amount_minor=BALANCE, transfer_id=new_id(), reference=None
    )
    await store.transact(top_up)


def empty(admin_url: str) -> None:
    """Remove all rows: the run-time role has no right to, as the ledger can't forget."""
    connection = psycopg2.connect(admin_url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("TRUNCATE wallets, inbox, outbox, watermarks CASCADE")
    finally:
        connection.close()
