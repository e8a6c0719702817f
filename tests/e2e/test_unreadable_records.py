"""A whole shop whose topics get what the client library can't parse, and every compression there is."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.partitioner import DefaultPartitioner

from eshop.contracts.topics import ORDERS_EVENTS, PARTITIONS, PAYMENTS_EVENTS
from tests.e2e.test_operators import eshop, listed
from tests.integration.test_audit_live import audit, broken
from tests.support import record_batches as raw_batches
from tests.support.builders import new_id
from tests.support.shop_process import Shop, Shopper, running_shop
from tests.support.worker_process import an_admin

WORKERS = ("orders", "payments", "projections", "gateway")
TOPICS = (ORDERS_EVENTS.name, PAYMENTS_EVENTS.name)
WAIT_SECONDS_MAX = 60
BATCH: list[raw_batches.Record] = [(b"somebody", b"something", [])] * 3

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def own_shop() -> Iterator[Shop]:
    """A shop of this module's own: what is put on its topics stays there."""
    with running_shop() as running:
        yield running


@asynccontextmanager
async def shoppers(shop: Shop, count: int) -> AsyncIterator[list[Shopper]]:
    async with aiohttp.ClientSession() as session:
        made = [Shopper(session, shop.gateways()[0], f"user-{new_id()}") for _ in range(count)]
        for shopper in made:
            await shopper.open_account(1_000)
        yield made


async def all_finish(customers: list[Shopper]) -> None:
    """Have each place an order, and see it paid."""
    orders = [await customer.order(5, new_id()) for customer in customers]
    for customer, order in zip(customers, orders, strict=True):
        assert (await customer.until_final(order["order_id"], WAIT_SECONDS_MAX))["status"] == "FINISHED"


def kafka_of(shop: Shop) -> str:
    return f"127.0.0.1:{shop.ports['kafka']['kafka']}"


def partition_of(shopper: Shopper) -> int:
    partitions = list(range(PARTITIONS))
    return int(DefaultPartitioner()(shopper.user_id.encode(), partitions, partitions))


async def until_metric(shop: Shop, name: str, pattern: str, value: float) -> None:
    """Wait until a process counts that many."""
    url = f"http://127.0.0.1:{shop.ports[name]['http']}/metrics"
    async with aiohttp.ClientSession() as session, asyncio.timeout(WAIT_SECONDS_MAX):
        while True:
            async with session.get(url) as answer:
                found = re.search(rf"^{pattern} (.+)$", await answer.text(), re.MULTILINE)
            if found and float(found[1]) == value:
                return
            await asyncio.sleep(0.1)


async def kill_each(shop: Shop) -> None:
    """Kill every worker and wait until the shop is ready again, each started once more."""
    before = shop.processes()
    for name in WORKERS:
        os.kill(before[name]["pid"], signal.SIGKILL)
    async with asyncio.timeout(2 * WAIT_SECONDS_MAX):
        while True:
            now = await asyncio.to_thread(shop.processes)
            again = [now[name]["restarts"] - before[name]["restarts"] for name in WORKERS]
            if all(again) and all(now[name]["ready"] for name in WORKERS):
                assert again == [1] * len(WORKERS)
                return


async def poison(shop: Shop, partition: int) -> dict[tuple[str, int], str]:
    """Put a bad record and a bad batch on both topics; return each one's place with its reader."""
    readers = dict(zip(TOPICS, ("payments", "orders"), strict=True))
    places: dict[tuple[str, int], str] = {}
    producer = AIOKafkaProducer(bootstrap_servers=kafka_of(shop))
    await producer.start()
    try:
        for topic, reader in readers.items():
            base = await raw_batches.send(
                producer, topic, partition, raw_batches.with_bad_header_name(BATCH[:1], 0)
            )
            places[topic, base] = reader
            base = await raw_batches.send(producer, topic, partition, raw_batches.with_bad_lz4(BATCH))
            places[topic, base + len(BATCH) - 1] = reader
    finally:
        await producer.stop()
    return places


async def until_listed(shop: Shop, count: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while True:
            letters = list((await listed(shop, "--cause", "unreadable"))["letters"])
            if len(letters) == count:
                return letters


async def test_what_can_not_be_parsed_is_set_aside_and_the_shop_goes_on(own_shop: Shop) -> None:
    async with shoppers(own_shop, 8) as customers:
        at = partition_of(customers[0])
        load = asyncio.create_task(all_finish(customers))
        places = await poison(own_shop, at)
        await load
        await all_finish(customers)
        letters = await until_listed(own_shop, len(places))
        assert {(one["topic"], one["offset"]): one["service"] for one in letters} == places
        assert {one["partition"] for one in letters} == {at}
        await until_metric(own_shop, "gateway", "gateway_events_undecodable_total", len(places))
        counted = r'eshop_projection_events_total\{outcome="undecodable"\}'
        await until_metric(own_shop, "projections", counted, len(places))
        await kill_each(own_shop)
        await all_finish(customers)
    code, report = await audit(own_shop, "--settle", "10")
    assert (code, broken(report)) == (0, [])
    assert report["checked"]["dead_letters"] == len(places)
    await look_and_discard(own_shop, letters)


async def look_and_discard(shop: Shop, letters: list[dict[str, Any]]) -> None:
    """See that an operator is told what it is, that it can't be replayed, and that it can be discarded."""
    letter = letters[0]
    dead_letter_id = str(letter["dead_letter_id"])
    code, said = await eshop(shop, "deadletters", "show", dead_letter_id)
    place = f"{letter['topic']}/{letter['partition']}@{letter['offset']}"
    assert (code, place in said, "can't be parsed" in said, "base64:" in said) == (0, True, True, True), said
    code, said = await eshop(shop, "deadletters", "replay", dead_letter_id, "--reason", "try")
    assert (code, "can't be replayed" in said, "discard it" in said) == (1, True, True), said
    ids = [str(one["dead_letter_id"]) for one in letters]
    code, said = await eshop(shop, "deadletters", "discard", *ids, "--reason", "not ours")
    assert (code, f"{len(ids)} discarded" in said) == (0, True), said
    assert await until_listed(shop, 0) == []


async def test_orders_finish_whatever_compression_an_administrator_sets(own_shop: Shop) -> None:
    async with shoppers(own_shop, 1) as customers, an_admin(kafka_of(own_shop)) as admin:
        for compression in ("gzip", "snappy", "lz4", "zstd", "producer"):
            wanted = {"compression.type": compression}
            await admin.alter_configs(
                [ConfigResource(ConfigResourceType.TOPIC, topic, wanted) for topic in TOPICS]
            )
            await all_finish(customers)
        await kill_each(own_shop)
        await all_finish(customers)
    code, report = await audit(own_shop, "--settle", "10")
    assert (code, broken(report)) == (0, [])
