"""Whatever a client writes into a query, a condition or a body: it is served or refused, never a 500."""

import asyncio
import json
from collections.abc import Coroutine
from typing import Any
from urllib.parse import quote, quote_from_bytes

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from yarl import URL

from gateway.http.queries import cursor_text
from tests.support.fake_services import FakeServices

pytest_plugins = ["tests.support.gateway"]

Client = TestClient[web.Request, web.Application]

BASE = "/api/v1"
ORDER = f"{BASE}/orders/01a20499-b516-70c7-84d1-48eb107a5d12"
QUERIED = (f"{BASE}/orders", f"{BASE}/accounts/me/transfers", ORDER, f"{ORDER}/events", f"{BASE}/ws")
POSTED = (f"{BASE}/orders", f"{BASE}/accounts", f"{BASE}/accounts/me/top-ups", f"{ORDER}/cancel")
#: In the shop's form, in and out of every range.
numbers = st.integers(-(2**70), 2**70).map(str) | st.integers(-1, 200).map(str)
two = st.integers(0, 99).map("{:02}".format)
times = st.builds(
    "{}-{}-{}T{}:{}:{}{}{}:{}".format,
    st.sampled_from(["0000", "0001", "0002", "1970", "2026", "9998", "9999"]),
    st.sampled_from(["01", "12", "13"]),
    st.sampled_from(["01", "31", "32"]),
    *[st.sampled_from(["00", "23", "24", "59", "60"])] * 3,
    st.sampled_from(["+", "-"]),
    two,
    two,
)
cursors = st.integers(0, 2**70).map(cursor_text) | st.builds("{}.{}".format, numbers, numbers)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = (numbers | times | cursors | texts).map(quote) | st.binary(max_size=8).map(quote_from_bytes)
names = st.sampled_from(
    ["limit", "cursor", "status", "created_after", "created_before", "wait", "last_event_id", "x"]
)
queries = st.lists(st.tuples(names, values), max_size=4).map(lambda pairs: "&".join(map("=".join, pairs)))
fields = st.sampled_from(
    ["amount_minor", "currency", "description", "items", "reference", "sku", "quantity", "~/"]
)
documents = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(fields, inner, max_size=4),
    max_leaves=12,
)


def json_bytes(document: object) -> bytes:
    return json.dumps(document).encode()


@pytest.fixture
async def busy(client: Client, services: FakeServices) -> Client:
    """A client whose lists have a next page."""
    services.payments.change("ann", 0)
    for _ in range(3):
        services.orders.place("ann", 5)
        services.payments.move("ann", "top_up", 5)
    return client


def on(loop: asyncio.AbstractEventLoop, asked: Coroutine[Any, Any, int]) -> int:
    return asyncio.run_coroutine_threadsafe(asked, loop).result(30)


async def test_no_query_is_too_strange(busy: Client) -> None:
    loop = asyncio.get_running_loop()

    async def status(path: str, query: str, tag: str) -> int:
        url = URL(f"{path}?{query}", encoded=True)
        async with busy.get(url, headers={"If-None-Match": f'"{tag}"'}) as response:
            return response.status

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.sampled_from(QUERIED), queries, numbers)
    @example(QUERIED[0], "created_after=9999-12-31T23:59:59-23:59", "1")
    @example(QUERIED[0], "created_before=0001-01-01T00:00:00%2B23:59", "1")
    @example(QUERIED[0], "limit=1&x=%ff", "1")
    @example(QUERIED[1], "limit=1&x=%ed%a0%80", "1")
    def check(path: str, query: str, tag: str) -> None:
        assert on(loop, status(path, query, tag)) < 500

    await asyncio.to_thread(check)


async def test_no_body_is_too_strange(busy: Client) -> None:
    loop = asyncio.get_running_loop()

    async def status(path: str, body: bytes) -> int:
        headers = {"Content-Type": "application/json"}
        async with busy.post(path, data=body, headers=headers) as response:
            return response.status

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.sampled_from(POSTED), st.binary(max_size=40) | documents.map(json_bytes))
    @example(POSTED[0], b'{"amount_minor":' + b"9" * 5000 + b"}")
    @example(POSTED[0], b'{"amount_minor":1e999}')
    @example(POSTED[0], b'{"amount_minor":5,"description":"\\ud800"}')
    @example(POSTED[0], b'{"\\ud800":5}')
    def check(path: str, body: bytes) -> None:
        assert on(loop, status(path, body)) < 500

    await asyncio.to_thread(check)
