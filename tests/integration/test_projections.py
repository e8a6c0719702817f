"""Do the projections keep their promise on a real broker: after SIGKILL, without local state, on two workers?

Events are put straight on the topics; workers are real processes of the Faust CLI, judged by what they serve.
"""

import asyncio
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiohttp import ClientError, ClientSession, ClientTimeout
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from rocksdict import AccessType, Options, Rdict

from eshop.cluster.embedded import EmbeddedCluster
from eshop.cluster.ports import free_port
from eshop.contracts.bodies import Body
from eshop.contracts.envelope import Envelope
from eshop.contracts.messages import encode, schema_of
from eshop.contracts.orders_v1 import OrderCancellationRequested, OrderCancelled, OrderCreated, OrderFinished
from eshop.contracts.payments_v1 import AccountToppedUp
from eshop.contracts.services import PROJECTIONS
from eshop.contracts.topics import ORDERS_EVENTS, PARTITIONS, PAYMENTS_EVENTS
from eshop.kafka.topics import ensure_topics
from eshop.relay.placement import partition_of
from eshop.tables.users import TABLE
from tests.support import record_batches as raw_batches
from tests.support.worker_process import WorkerProcess, own_names

#: Nothing changes for this time only if nothing ever will: two rebalances and a session that expires are
#: inside. A machine that is merely slow goes on changing the answer.
WAIT_SECONDS_MAX = 60.0
pytestmark = pytest.mark.timeout(300)
POLL_SECONDS = 0.05

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)

Json = dict[str, Any]


class Shop:
    """Makes events as the services would, and keeps its own account of them: no code of the fold's."""

    def __init__(self, seed: int, users: int) -> None:
        self._random = random.Random(seed)
        self._users = [f"user-{number}" for number in range(users)]
        self._orders: Counter[str] = Counter()
        self._wallets: Counter[str] = Counter()
        self._open: list[tuple[str, str, int, str]] = []
        self._finished: list[tuple[str, str, int, str]] = []
        self._balance: Counter[str] = Counter()
        self.statuses = Counter(NEW=0, FINISHED=0, CANCELLED=0)
        self.turnover: Counter[str] = Counter()
        self.seen: set[str] = set()

    def next_event(self) -> Body:
        """Make the next thing happen to some user."""
        chance = self._random.random()
        if self._open and chance < 0.3:
            return self._end_new("F")
        if self._open and chance < 0.4:
            return self._end_new("X")
        if self._finished and chance < 0.5:
            return self._refund()
        if chance < 0.6:
            return self._top_up()
        return self._create()

    @property
    def balance(self) -> int:
        """The sum of all wallets."""
        return sum(self._balance.values())

    def _create(self) -> Body:
        user = self._pick_user()
        order_id = str(UUID(int=self._random.getrandbits(128)))
        amount, currency = self._random.randint(1, 9999), self._random.choice(["USD", "EUR"])
        self._open.append((user, order_id, amount, currency))
        self.statuses["NEW"] += 1
        return OrderCreated(
            **self._order(user, order_id, amount, currency), version=1, pay_before=NOON + timedelta(minutes=1)
        )

    def _end_new(self, how: str) -> Body:
        user, order_id, amount, currency = self._take(self._open)
        self.statuses["NEW"] -= 1
        about = self._order(user, order_id, amount, currency)
        if how == "X":
            self.statuses["CANCELLED"] += 1
            return OrderCancelled(**about, version=2, reason="insufficient_funds")
        self.statuses["FINISHED"] += 1
        self.turnover[currency] += amount
        self._finished.append((user, order_id, amount, currency))
        return OrderFinished(**about, version=2)

    def _refund(self) -> Body:
        user, order_id, amount, currency = self._take(self._finished)
        self.statuses["FINISHED"] -= 1
        self.statuses["CANCELLED"] += 1
        self.turnover[currency] -= amount
        return OrderCancelled(**self._order(user, order_id, amount, currency), version=3, reason="refunded")

    def _top_up(self) -> Body:
        user = self._pick_user()
        self._wallets[user] += 1
        self._balance[user] += 100
        return AccountToppedUp(
            user_id=user,
            balance_minor=self._balance[user],
            currency="USD",
            version=self._wallets[user],
            feed_number=self._wallets[user],
            transfer_id=str(UUID(int=1)),
            amount_minor=100,
        )

    def _order(self, user: str, order_id: str, amount: int, currency: str) -> Json:
        self._orders[user] += 1
        return {
            "user_id": user,
            "order_id": order_id,
            "amount_minor": amount,
            "currency": currency,
            "feed_number": self._orders[user],
        }

    def _pick_user(self) -> str:
        user = self._random.choice(self._users)
        self.seen.add(user)
        return user

    def _take(self, orders: list[tuple[str, str, int, str]]) -> tuple[str, str, int, str]:
        return orders.pop(self._random.randrange(len(orders)))


@dataclass
class Bench:
    """One shop's topics and workers on the shared broker."""

    kafka: str
    data: Path
    name: str
    http: ClientSession
    producer: AIOKafkaProducer
    workers: "list[Worker]" = field(default_factory=list)
    taken: set[int] = field(default_factory=set)

    async def put(self, body: Body, minute: int = 0, **headers: bytes) -> None:
        """Put an event on its topic as the relay would, perhaps with some headers of its own."""
        schema = schema_of(body)
        envelope = Envelope(
            message_id=str(uuid4()),
            type=schema.type,
            source="test",
            dataschema=schema.dataschema,
            time=NOON + timedelta(minutes=minute),
            correlation_id="c",
            causation_id="c",
        )
        await self.producer.send(
            self.topic(schema.topic.name),
            key=body.user_id.encode(),
            value=encode(body),
            headers=[*envelope.to_headers(), *headers.items()],
            partition=partition_of(schema.topic.name, body.user_id),
        )

    async def put_history(self, shop: Shop, count: int) -> None:
        """Put that many events, each tenth of them twice: a relay may repeat itself."""
        for number in range(count):
            body = shop.next_event()
            await self.put(body, minute=number * 30 // count)
            if number % 10 == 0:
                await self.put(body, minute=number * 30 // count)
        await self.producer.flush()

    def topic(self, name: str) -> str:
        return self.name + name

    @property
    def changelog_topic(self) -> str:
        return f"eshop-projections-{self.name}-{TABLE}-changelog"

    @asynccontextmanager
    async def changelog(self) -> AsyncIterator[AIOKafkaConsumer]:
        """Yield a consumer of all partitions of the table's changelog."""
        topic = self.changelog_topic
        consumer = AIOKafkaConsumer(bootstrap_servers=self.kafka, enable_auto_commit=False)
        await consumer.start()
        try:
            consumer.assign([TopicPartition(topic, number) for number in range(PARTITIONS)])
            yield consumer
        finally:
            await consumer.stop()

    async def start(self, port: int | None = None, *options: str) -> "Worker":
        """Start a worker process; its local state is its port's."""
        worker = Worker(
            kind=PROJECTIONS,
            folder=self.data,
            settings=own_names(self.kafka, self.name),
            web_port=port or free_port(self.taken),
            end_seconds_max=WAIT_SECONDS_MAX,
            http=self.http,
        )
        await worker.start(*options)
        self.workers.append(worker)
        return worker


@dataclass(kw_only=True)
class Worker(WorkerProcess):
    """A projections worker, and what it answers."""

    http: ClientSession

    @property
    def state(self) -> Path:
        return self.folder / "faust" / f"projections-{self.web_port}"

    def read_up_to(self, partitions: Iterable[int]) -> dict[int, int]:
        """Return, by partition, from which offset of the changelog on a start would read."""
        known = {}
        for partition in partitions:
            store = Rdict(
                str(self.state / "v1" / "tables" / f"{TABLE}-{partition}.db"),
                options=Options(raw_mode=True),
                access_type=AccessType.read_only(),
            )
            known[partition] = int(store[b"__faust\0offset__"] or -1) + 1
            store.close()
        return known

    async def get(self, path: str) -> tuple[int, Json]:
        """Return status and body; (0, {}) while nobody listens."""
        try:
            async with self.http.get(f"{self.url}/{path}") as response:
                return response.status, await response.json()
        except (ClientError, TimeoutError):
            return 0, {}

    async def until(self, path: str, good: Callable[[int, Json], bool]) -> Json:
        """Ask until the answer is good; fail, with it and the worker's log, once it no longer changes."""
        last: tuple[int, Json] = (0, {})
        changed_at = time.monotonic()
        while not good(*last):
            assert self.is_running, self.end_of_log
            if time.monotonic() - changed_at > WAIT_SECONDS_MAX:
                pytest.fail(f"{path} is still {last}\n{self.end_of_log}")
            await asyncio.sleep(POLL_SECONDS)
            answer = await self.get(path)
            if answer != last:
                last, changed_at = answer, time.monotonic()
        return last[1]

    async def until_right(self, shop: Shop) -> Json:
        """Wait until the totals are the shop's own account."""
        return await self.until(
            "projections/totals", lambda status, body: status == 200 and agrees(body, shop)
        )


def agrees(totals: Json, shop: Shop) -> bool:
    nothing_missed = totals["missed"] == {"orders": 0, "wallet": 0}
    turnover = {currency: amount for currency, amount in totals["turnover_minor"].items() if amount}
    return (
        totals["complete"]
        and nothing_missed
        and totals["users"] == len(shop.seen)
        and totals["orders"] == shop.statuses
        and turnover == {currency: amount for currency, amount in shop.turnover.items() if amount}
        and totals["balance_minor"].get("USD", 0) == shop.balance
    )


async def first_records(bench: Bench) -> list[ConsumerRecord]:
    """Return a record of each partition of the changelog that has any: nothing newer is said there."""
    async with bench.changelog() as consumer:
        await consumer.seek_to_beginning()
        ends = await consumer.end_offsets(consumer.assignment())
        return [await consumer.getone(partition) for partition, end in ends.items() if end]


async def changelog_ends(bench: Bench) -> dict[int, int]:
    """Return the changelog's next offset by partition, where it has any records."""
    async with bench.changelog() as consumer:
        ends = await consumer.end_offsets(consumer.assignment())
        return {partition.partition: end for partition, end in ends.items() if end}


@pytest.fixture
async def bench(
    cluster: EmbeddedCluster, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Bench]:
    async with open_bench(cluster.kafka, tmp_path, f"p{abs(hash((request.node.name, tmp_path)))}-") as opened:
        yield opened


@asynccontextmanager
async def open_bench(kafka: str, data: Path, name: str) -> AsyncIterator[Bench]:
    await ensure_topics(kafka, name)
    producer = AIOKafkaProducer(bootstrap_servers=kafka, acks="all", linger_ms=5)
    await producer.start()
    async with ClientSession(timeout=ClientTimeout(total=5)) as http:
        opened = Bench(kafka, data, name, http, producer)
        try:
            yield opened
        finally:
            for worker in opened.workers:
                await worker.kill()
            await producer.stop()


async def test_totals_are_what_happened(bench: Bench) -> None:
    shop = Shop(seed=1, users=40)
    worker = await bench.start()
    await bench.put_history(shop, 1500)
    order = {"user_id": "user-1", "order_id": str(UUID(int=1))}
    await bench.put(OrderCancellationRequested(**order, reason="user"))
    totals = await worker.until_right(shop)
    assert totals["workers"] == {worker.url: "ok"}
    _, window = await worker.get("projections/window")
    minutes = window["minutes"].values()
    assert len(minutes) == 30
    assert sum(minute["created"] for minute in minutes) == shop.statuses.total()
    assert sum(minute["turnover_minor"].get("EUR", 0) for minute in minutes) == shop.turnover["EUR"]
    status, user = await worker.get("projections/users/user-1")
    assert (status, user["user_id"], user["missed"]) == (200, "user-1", {"orders": 0, "wallet": 0})
    assert (await worker.get("projections/users/nobody"))[0] == 404


async def test_what_can_not_be_parsed_is_counted_and_passed_over_at_every_start(bench: Bench) -> None:
    shop = Shop(seed=7, users=40)
    worker = await bench.start()
    await bench.put_history(shop, 300)
    await worker.until_right(shop)
    record: raw_batches.Record = (b"user-1", b"value", [])
    bad = (raw_batches.with_bad_header_name([record], 0), raw_batches.with_bad_lz4([record] * 3))
    sources = [bench.topic(known.name) for known in (ORDERS_EVENTS, PAYMENTS_EVENTS)]
    for topic in (*sources, bench.changelog_topic):
        for partition in range(PARTITIONS):
            await raw_batches.send(bench.producer, topic, partition, bad[partition % 2])
    await bench.put_history(shop, 300)
    await worker.until_right(shop)
    async with bench.http.get(f"{worker.url}/metrics") as response:
        counted = f'eshop_projection_events_total{{outcome="undecodable"}} {2 * PARTITIONS:.1f}'
        assert counted in await response.text()
    await worker.kill()
    worker = await bench.start(worker.web_port)
    await worker.until_right(shop)
    await worker.stop()
    shutil.rmtree(worker.state)
    await (await bench.start(worker.web_port)).until_right(shop)


async def test_a_worker_serves_health_and_metrics_and_leaves_cleanly(bench: Bench) -> None:
    worker = await bench.start(None, "-L", "uvloop")
    ready = await worker.until("health/ready", lambda status, _: status == 200)
    assert ready["checks"] == {"kafka": "ok", "tables": "ok"}
    assert await worker.get("health/live") == (200, {"status": "live"})
    async with bench.http.get(f"{worker.url}/metrics") as response:
        assert response.content_type == "text/plain"
        metrics = await response.text()
    assert "eshop_projection_missed" in metrics
    assert "faust_total_rebalances" in metrics
    for path in ("", "table/", "router/", "graph/"):
        async with bench.http.get(f"{worker.url}/{path}") as response:
            assert response.status == 404, path
    await worker.stop()


async def test_totals_stay_right_when_workers_are_killed_in_the_middle(bench: Bench) -> None:
    shop = Shop(seed=2, users=60)
    chance = random.Random(2)
    port = free_port(bench.taken)
    putting = asyncio.create_task(bench.put_history(shop, 20_000))  # a fold takes up to 1,000
    killed_at: list[int] = []
    for _ in range(3):
        worker = await bench.start(port)
        goal = (killed_at or [0])[-1] + chance.randint(200, 1200)
        seen = await worker.until("projections/local", reached(goal))
        await worker.kill()
        killed_at.append(events_in(seen))
    await putting
    assert killed_at[-1] < events_in({"totals": {"orders": shop.statuses}})
    worker = await bench.start(port)
    await worker.until_right(shop)
    await worker.kill()
    shutil.rmtree(worker.state)
    worker = await bench.start(port)
    await worker.until_right(shop)


def reached(goal: int) -> Callable[[int, Json], bool]:
    return lambda _, local: events_in(local) >= goal


def events_in(local: Json) -> int:
    orders = local.get("totals", {}).get("orders", {})
    return int(orders.get("NEW", 0) + 2 * orders.get("FINISHED", 0) + 2 * orders.get("CANCELLED", 0))


async def test_totals_are_rebuilt_without_local_state(bench: Bench) -> None:
    shop = Shop(seed=3, users=30)
    worker = await bench.start()
    await bench.put_history(shop, 1000)
    await worker.until_right(shop)
    await worker.stop()
    shutil.rmtree(worker.state)
    again = await bench.start(worker.web_port)
    await again.until_right(shop)
    await bench.put_history(shop, 300)
    await again.until_right(shop)


async def test_workers_share_topics_that_have_grown_as_before(bench: Bench) -> None:
    """The user's entry and all of the user's events are with one worker, of two."""
    names = [bench.topic(topic.name) for topic in (ORDERS_EVENTS, PAYMENTS_EVENTS)]
    admin = AIOKafkaAdminClient(bootstrap_servers=bench.kafka)
    await admin.start()
    try:
        # One a bit more than the other: each would go its own way.
        await admin.create_partitions(
            {name: NewPartitions(PARTITIONS + 4 + n) for n, name in enumerate(names)}
        )
        while any(len(topic["partitions"]) == PARTITIONS for topic in await admin.describe_topics(names)):
            await asyncio.sleep(0.05)  # the broker shows it a moment after it says it is done
    finally:
        await admin.close()
    shop = Shop(seed=6, users=50)
    one, other = await bench.start(), await bench.start()
    await other.until("projections/totals", lambda status, body: status == 200 and len(body["workers"]) == 2)
    await bench.put_history(shop, 1500)
    for worker in (one, other):
        await worker.until_right(shop)
    assert one.log_file.read_text().count("messages go to the first 12") == len(names)


async def test_two_workers_answer_for_all_users_and_one_takes_over(bench: Bench) -> None:
    shop = Shop(seed=4, users=50)
    one, other = await bench.start(), await bench.start()
    await other.until("projections/totals", lambda status, body: status == 200 and len(body["workers"]) == 2)
    await bench.put_history(shop, 1500)
    for worker in (one, other):
        totals = await worker.until_right(shop)
        assert totals["workers"] == {one.url: "ok", other.url: "ok"}
    holders: Counter[str] = Counter()
    for user in sorted(shop.seen):
        answers = [await worker.get(f"projections/users/{user}") for worker in (one, other)]
        assert answers[0] == answers[1]
        assert answers[0][0] == 200
        holders[answers[0][1]["worker"]] += 1
    assert set(holders) == {one.url, other.url}
    await other.kill()
    status, body = await one.get("projections/totals")
    assert (status, body["complete"], body["workers"][other.url]) == (503, False, "no answer")
    await bench.put_history(shop, 500)
    totals = await one.until_right(shop)
    assert totals["workers"] == {one.url: "ok"}


async def test_a_stopped_worker_that_goes_on_spoils_nothing(bench: Bench) -> None:
    shop = Shop(seed=5, users=50)
    one, other = await bench.start(), await bench.start()
    await other.until("projections/totals", lambda status, body: status == 200 and len(body["workers"]) == 2)
    putting = asyncio.create_task(bench.put_history(shop, 6000))
    await other.until("projections/local", reached(300))
    other.send_signal(signal.SIGSTOP)
    await putting
    totals = await one.until_right(shop)
    assert totals["workers"] == {one.url: "ok"}
    other.send_signal(signal.SIGCONT)
    await one.until("projections/totals", lambda status, body: status == 200 and len(body["workers"]) == 2)
    await bench.put_history(shop, 1000)
    await one.until_right(shop)
    for worker in (one, other):
        await worker.stop()
    shutil.rmtree(one.state)
    again = await bench.start(one.web_port)
    await again.until_right(shop)


async def test_a_late_record_of_another_worker_does_not_make_the_next_start_read_all_since(
    bench: Bench,
) -> None:
    shop = Shop(seed=8, users=20)
    worker = await bench.start()
    await bench.put_history(shop, 200)
    await worker.until_right(shop)
    for record in await first_records(bench):
        await bench.producer.send(record.topic, record.value, record.key, record.partition)
    await bench.put_history(shop, 400)
    await worker.until_right(shop)
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while (ends := await changelog_ends(bench)) != worker.read_up_to(ends):
            await asyncio.sleep(POLL_SECONDS)
    await worker.kill()
    again = await bench.start(worker.web_port)
    await again.until_right(shop)


async def test_what_nobody_has_read_yet_is_read_by_who_takes_it_over(bench: Bench) -> None:
    shop = Shop(seed=6, users=50)
    one, other = await bench.start(), await bench.start()
    await other.until("projections/totals", lambda status, body: status == 200 and len(body["workers"]) == 2)
    other.send_signal(signal.SIGSTOP)
    await bench.put_history(shop, 600)  # before other's session ends: nothing of its partitions is committed
    totals = await one.until_right(shop)
    assert totals["workers"] == {one.url: "ok"}


async def test_a_number_that_never_came_is_shown(bench: Bench) -> None:
    worker = await bench.start()
    about: Json = {"user_id": "ann", "order_id": str(UUID(int=1)), "amount_minor": 5, "currency": "USD"}
    await bench.put(OrderCreated(**about, version=1, feed_number=1, pay_before=NOON))
    await bench.put(OrderFinished(**about, version=2, feed_number=4))
    totals = await worker.until(
        "projections/totals", lambda _, body: body.get("missed") == {"orders": 2, "wallet": 0}
    )
    assert totals["orders"] == {"NEW": 0, "FINISHED": 1, "CANCELLED": 0}
    async with bench.http.get(f"{worker.url}/metrics") as response:
        assert 'eshop_projection_missed_total{feed="orders"} 2.0' in await response.text()


async def test_a_message_nobody_can_read_is_passed_over_and_told(bench: Bench) -> None:
    shop = Shop(seed=7, users=5)
    worker = await bench.start()
    await bench.producer.send_and_wait(bench.topic("eshop.orders.events.v1"), key=b"ann", value=b"garbage")
    await bench.put_history(shop, 50)
    await worker.until_right(shop)
    async with bench.http.get(f"{worker.url}/metrics") as response:
        assert 'eshop_projection_events_total{outcome="undecodable"} 1.0' in await response.text()
    assert "header 'ce_id' is missing" in worker.log_file.read_text()


async def test_no_time_or_type_of_an_event_ends_a_worker_or_hides_what_happens(bench: Bench) -> None:
    shop = Shop(seed=8, users=5)
    worker = await bench.start()
    order: Json = {"user_id": "eve", "order_id": str(UUID(int=1)), "amount_minor": 5, "currency": "USD"}
    bodies = [OrderCreated(**order, version=1, feed_number=number, pay_before=NOON) for number in range(1, 5)]
    times = {"ce_time": b"0001-01-01T00:00:00"}, {"ce_time": b"9999-12-31T23:59:59-23:59"}
    newer = {"ce_type": b"eshop.orders.OrderRenamed", "ce_dataschema": b"eshop/orders/v1/OrderRenamed"}
    for body, headers in zip(bodies, [*times, newer, {}], strict=True):
        await bench.put(body, minute=60 * 24 * 365, **headers)  # one that is left as it is: a year ahead
    await bench.put_history(shop, 50)
    shop.statuses["NEW"] += 1
    shop.seen.add("eve")
    for once_more in (False, True):
        if once_more:
            await worker.kill()
            worker = await bench.start(worker.web_port)
        seen = await worker.until(
            "projections/totals", lambda _, body: body.get("orders") == dict(shop.statuses)
        )
        assert seen["missed"]["orders"] == 3
        _, window = await worker.get("projections/window")
        created = sum(minute["created"] for minute in window["minutes"].values())
        assert created == shop.statuses.total() - 1
        assert max(window["minutes"]) < "2026-11-23"
        if not once_more:
            async with bench.http.get(f"{worker.url}/metrics") as response:
                told = await response.text()
            assert 'eshop_projection_events_total{outcome="undecodable"} 2.0' in told
            assert 'eshop_projection_events_total{outcome="unknown_type"} 1.0' in told
    assert "can't be folded" not in worker.log_file.read_text()


async def test_a_worker_that_cannot_start_says_why_and_fails(bench: Bench) -> None:
    taken = await bench.start()
    await taken.until("health/ready", lambda status, _: status == 200)
    late = await bench.start(taken.web_port)
    assert await late.ends() == 1
    assert "address already in use" in late.log_file.read_text()
    bench.kafka = f"127.0.0.1:{free_port(bench.taken)}"
    lost = await bench.start()
    assert await lost.ends() == 1
    assert "KafkaConnectionError" in lost.log_file.read_text()
