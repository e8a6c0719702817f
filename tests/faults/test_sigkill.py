"""SIGKILL where it hurts most, while 2,000 orders are under way, and nobody lays a hand on anything."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from eshop.contracts.topics import PARTITIONS, PAYMENTS_EVENTS
from tests.support.builders import new_id
from tests.support.shop_process import Feed, Query, Shop, Shopper

USERS = 40
ORDERS_PER_USER = 50
AMOUNT_MINOR = 7
#: Enough for most orders of a user, but not for all.
BALANCE_MINOR = AMOUNT_MINOR * 45
FINAL_SECONDS_MAX = 90
BLOCKED_SECONDS_MAX = 30


@contextmanager
def blocked_worker(shop: Shop, database: str, lock: str, statement: str) -> Iterator[Any]:
    """Hold a lock until a worker's statement waits for it; yield the worker's pid, and if it has written.

    The lock is let go afterwards. A lock that is not wanted soon is let go now and then, so that the workers
    do not run into their timeouts instead.
    """
    waiting = (
        "SELECT substring(application_name from '[0-9]+$')::integer AS pid,"
        " pid AS backend, backend_xid IS NOT NULL AS has_written FROM pg_stat_activity"
        # Blocked by this very lock: the other service's workers wait for locks now and then, too.
        " WHERE application_name LIKE 'eshop-%%' AND query ILIKE %s AND %s = ANY (pg_blocking_pids(pid))"
    )
    with shop.database(database) as holder, shop.database(database) as watcher:
        holding = holder("SELECT pg_backend_pid() AS pid")[0].pid
        deadline = time.monotonic() + BLOCKED_SECONDS_MAX
        while time.monotonic() < deadline:
            holder(lock)
            held_until = time.monotonic() + 2
            while time.monotonic() < held_until:
                watcher.roll_back()
                if found := watcher(waiting, statement, holding):
                    yield found[0]
                    # What the killed worker had asked for last would still be done when the lock is let go.
                    watcher("SELECT pg_terminate_backend(%s)", found[0].backend)
                    return
                time.sleep(0.01)
            holder.roll_back()
    raise AssertionError(f"nobody waited for {lock!r}")


def kill(shop: Shop, pid: int, kind: str) -> str:
    """SIGKILL a worker, which must be one of the kind, and return its name."""
    (name,) = [name for name, p in shop.processes().items() if p["pid"] == pid and p["kind"] == kind]
    os.kill(pid, signal.SIGKILL)
    return name


@dataclass
class Customer:
    """A shopper at both gateways, who listens all the while."""

    shopper: Shopper
    there: Shopper
    feed: Feed
    listening: asyncio.Task[None]
    orders: dict[str, dict[str, Any]]


async def listen(feed: Feed) -> None:
    """Read frames for as long as the socket is open."""
    while True:
        await feed.next(seconds_max=300)


async def shop_on(customer: Customer) -> None:
    """Place the customer's orders, a few at a time, half of them at each gateway."""
    gate = asyncio.Semaphore(5)

    async def place(number: int) -> None:
        async with gate:
            shopper = customer.shopper if number % 2 else customer.there
            order = await shopper.order(AMOUNT_MINOR, f"order-{number}", seconds_max=120)
            customer.orders[order["order_id"]] = order

    await asyncio.gather(*(place(number) for number in range(ORDERS_PER_USER)))


async def repeated_messages(kafka: str) -> int:
    """Return how many messages of payments are in the topic more than once."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, auto_offset_reset="earliest")
    await consumer.start()
    try:
        partitions = [TopicPartition(PAYMENTS_EVENTS.name, number) for number in range(PARTITIONS)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        ids: list[bytes] = []
        while len(ids) < sum(ends.values()):
            for records in (await consumer.getmany(timeout_ms=1_000)).values():
                ids += [dict(record.headers)["ce_id"] for record in records]
        return len(ids) - len(set(ids))
    finally:
        await consumer.stop()


def assert_money_is_right(shop: Shop, customers: list[Customer]) -> None:
    """Compare both databases and what the customers were told, order by order."""
    ours = [customer.shopper.user_id for customer in customers]
    with shop.database("orders") as orders, shop.database("payments") as payments:
        ended = {
            row.order_id: row
            for row in orders(
                "SELECT order_id::text, user_id, status, reason, amount_minor FROM orders"
                " WHERE user_id = ANY (%s)",
                ours,
            )
        }
        debits = payments(
            "SELECT order_id::text, t.user_id, -l.amount_minor AS amount_minor FROM transfers t"
            " JOIN legs l USING (transfer_id)"
            " WHERE kind = 'capture' AND account = 'wallet' AND t.user_id = ANY (%s)",
            ours,
        )
        finished = {id_ for id_, row in ended.items() if row.status == "FINISHED"}
        assert {id_ for customer in customers for id_ in customer.orders} == set(ended)
        assert len(debits) == len({row.order_id for row in debits})
        assert {(r.order_id, r.user_id, r.amount_minor) for r in debits} == {
            (id_, ended[id_].user_id, ended[id_].amount_minor) for id_ in finished
        }
        assert {row.reason for id_, row in ended.items() if id_ not in finished} == {"insufficient_funds"}
        wrong = payments(
            "SELECT w.user_id FROM wallets w LEFT JOIN legs l USING (user_id) GROUP BY w.user_id"
            " HAVING w.balance_minor <> coalesce(sum(l.amount_minor), 0)"
        )
        assert wrong == []
        assert payments("SELECT transfer_id FROM legs GROUP BY 1 HAVING sum(amount_minor) <> 0") == []
        assert_no_gaps(orders, "order_history")
        assert_no_gaps(payments, "wallet_history")


def assert_no_gaps(query: Query, history: str) -> None:
    """Check that every user's feed numbers are 1..n."""
    gaps = query(f"SELECT user_id FROM {history} GROUP BY user_id HAVING max(feed_number) <> count(*)")
    assert gaps == []


def unfinished(shop: Shop) -> int:
    """Return how many orders wait and messages are unsent."""
    with shop.database("orders") as orders, shop.database("payments") as payments:
        (new,) = orders("SELECT count(*) FROM orders WHERE status = 'NEW'")
        unsent = [
            query("SELECT count(*) FROM outbox WHERE sent_at IS NULL")[0] for query in (orders, payments)
        ]
    return int(new.count + sum(row.count for row in unsent))


async def until_all_final(shop: Shop) -> float:
    """Return after how many seconds nothing is under way any more."""
    begun = time.monotonic()
    while left := await asyncio.to_thread(unfinished, shop):
        assert time.monotonic() - begun < FINAL_SECONDS_MAX, f"{left} orders or messages are still under way"
        await asyncio.sleep(0.2)
    return time.monotonic() - begun


@pytest.mark.timeout(300)
async def test_nothing_is_lost_or_doubled_when_workers_are_killed(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        )
        customers = []
        for number in range(USERS):
            here, there = (Shopper(session, gateway, f"{new_id()}-{number}") for gateway in shop.gateways())
            there.user_id, there._headers = here.user_id, here._headers
            await here.open_account(BALANCE_MINOR)
            feed = await stack.enter_async_context((here if number % 2 else there).feed())
            customers.append(Customer(here, there, feed, asyncio.create_task(listen(feed)), {}))
        shopping = asyncio.gather(*(shop_on(customer) for customer in customers))

        killed = [
            await asyncio.to_thread(kill_inside_a_transaction, shop, customers[0].shopper.user_id),
            await asyncio.to_thread(kill_between_publish_and_mark, shop),
        ]
        await shopping
        seconds = await until_all_final(shop)
        await until_told(customers)
        for customer in customers:
            customer.listening.cancel()

        assert_money_is_right(shop, customers)
        for customer in customers:
            assert customer.feed.numbers("orders") == list(range(1, 2 * ORDERS_PER_USER + 1))
            wallet = customer.feed.numbers("wallet")
            assert wallet == list(range(wallet[0], wallet[0] + len(wallet)))
        repeated = await repeated_messages(f"127.0.0.1:{shop.ports['kafka']['kafka']}")
        assert repeated > 0, "the relay was killed after publishing: something must be there twice"
        assert all(shop.processes()[name]["restarts"] >= 1 for name in killed)
    with capsys.disabled():
        orders = USERS * ORDERS_PER_USER
        print(  # noqa: T201
            f"\n{orders} orders, killed {' and '.join(killed)}: all final {seconds:.1f} s after the last was"
            f" accepted, {repeated} messages published twice"
        )


def kill_inside_a_transaction(shop: Shop, user_id: str) -> str:
    """Kill a payments worker whose batch waits for a wallet, its inbox claims written and not committed."""
    lock = f"SELECT 1 FROM wallets WHERE user_id = '{user_id}' FOR UPDATE"
    with blocked_worker(shop, "payments", lock, "%FROM wallets%FOR UPDATE%") as worker:
        assert worker.has_written, "the transaction has claimed its messages"
        return kill(shop, worker.pid, "payments")


def kill_between_publish_and_mark(shop: Shop) -> str:
    """Kill the payments worker that has published and can't mark, since marking looks at the lease."""
    lock = "LOCK TABLE relay_lease IN ACCESS EXCLUSIVE MODE"
    with blocked_worker(shop, "payments", lock, "UPDATE outbox%") as worker:
        return kill(shop, worker.pid, "payments")


async def until_told(customers: list[Customer]) -> None:
    """Wait until each customer has been told of every order's end."""
    async with asyncio.timeout(30):
        for customer in customers:
            while len(customer.feed.numbers("orders")) < 2 * ORDERS_PER_USER:
                assert not customer.listening.done(), customer.listening
                await asyncio.sleep(0.05)
