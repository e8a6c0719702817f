"""The life of an account over HTTP: its statement, its end, and its freezing, before services in memory."""

from typing import Any

import aiohttp
import grpc
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from pytest_aiohttp.plugin import AiohttpClient
from yarl import URL

from eshop.settings import Settings
from gateway.app import create_app
from gateway.app_keys import HUB
from gateway.cache import MemoryStore
from gateway.feed import frames
from gateway.server import SERVER_OPTIONS
from tests.support.fake_services import FakeServices

pytest_plugins = ["tests.support.gateway"]

Client = TestClient[web.Request, web.Application]

ORDERS = "/api/v1/orders"
ACCOUNTS = "/api/v1/accounts"
ME = f"{ACCOUNTS}/me"
TRANSFERS = f"{ME}/transfers"
TOP_UPS = f"{ME}/top-ups"
ITEM = {"sku": "A", "name": "Tea", "quantity": 2, "unit_price_minor": 3}


async def refusal(response: aiohttp.ClientResponse) -> tuple[int, str]:
    return response.status, (await response.json())["code"]


async def opened(client: Client, currency: str = "USD") -> dict[str, Any]:
    response = await client.post(ACCOUNTS, json={"currency": currency})
    assert response.status == 201
    account: dict[str, Any] = await response.json()
    return account


async def test_a_statement_tells_each_leg_newest_first(client: Client, services: FakeServices) -> None:
    await opened(client)
    await client.post(TOP_UPS, json={"amount_minor": 70, "reference": "r"})
    services.payments.move("ann", "capture", -30, order_id="o")
    page = await (await client.get(TRANSFERS)).json()
    assert page["next_cursor"] is None
    capture, top_up = page["items"]
    assert {**capture, "transfer_id": "", "at": ""} == {
        "transfer_id": "",
        "kind": "capture",
        "amount_minor": -30,
        "balance_minor": 40,
        "currency": "USD",
        "version": 3,
        "order_id": "o",
        "reference": None,
        "at": "",
    }
    assert (top_up["kind"], top_up["amount_minor"], top_up["balance_minor"]) == ("top_up", 70, 70)
    assert (top_up["order_id"], top_up["reference"]) == (None, "r")
    assert top_up["at"].endswith("Z")


async def test_a_statement_is_paged_as_orders_are(client: Client, services: FakeServices) -> None:
    await opened(client)
    for amount in range(1, 6):
        services.payments.move("ann", "top_up", amount)
    services.payments.move("bob", "top_up", 99)
    seen: list[int] = []
    target: str | URL = f"{TRANSFERS}?limit=2"
    while True:
        response = await client.get(target)
        page = await response.json()
        seen += [leg["amount_minor"] for leg in page["items"]]
        if page["next_cursor"] is None:
            assert "Link" not in response.headers
            break
        link = response.links["next"]["url"]
        assert isinstance(link, URL)
        assert (link.query["limit"], link.query["cursor"]) == ("2", page["next_cursor"])
        target = link.path_qs
    assert seen == [5, 4, 3, 2, 1]


async def test_a_statement_without_an_account_is_empty(client: Client) -> None:
    response = await client.get(TRANSFERS)
    assert (response.status, await response.json()) == (200, {"items": [], "next_cursor": None})


@pytest.mark.parametrize(
    ("query", "code"), [("cursor=x", "bad-cursor"), ("limit=0", "bad-query"), ("limit=101", "bad-query")]
)
async def test_a_statements_bad_query_is_refused(
    client: Client, services: FakeServices, query: str, code: str
) -> None:
    assert await refusal(await client.get(f"{TRANSFERS}?{query}")) == (400, code)
    assert services.does.asked == []


async def test_no_balance_older_than_the_statement_is_shown(client: Client, services: FakeServices) -> None:
    await opened(client)
    await client.get(ME)
    services.payments.move("ann", "top_up", 5)
    await client.get(TRANSFERS)
    assert (await (await client.get(ME)).json())["balance_minor"] == 5


async def test_a_closed_account_is_gone_even_where_the_cache_has_it(
    client: Client, services: FakeServices
) -> None:
    await opened(client)
    copy = [await client.get(ME) for _ in range(2)][-1]
    assert "Age" in copy.headers, "the open account must be in the cache for this test to tell anything"
    response = await client.delete(ME)
    assert (response.status, await response.read()) == (204, b"")
    assert await refusal(await client.get(ME)) == (404, "no-account")
    assert await refusal(await client.get(ME, headers={"If-None-Match": '"1"'})) == (404, "no-account")
    assert await refusal(await client.delete(ME)) == (404, "no-account")
    context = services.does.last("CloseAccount").context
    assert (context.user_id, context.idempotency_key) == ("ann", "")


async def test_a_replayed_opening_does_not_bring_a_closed_account_back(
    client: Client, store: MemoryStore, settings: Settings, aiohttp_client: AiohttpClient
) -> None:
    key = {"Idempotency-Key": "k"}
    await client.post(ACCOUNTS, json={}, headers=key)
    await client.delete(ME)
    await store.close()  # its copies have run out
    replayed = await client.post(ACCOUNTS, json={}, headers=key)
    assert (replayed.status, replayed.headers["Idempotency-Replayed"]) == (201, "true")
    server = TestServer(create_app(settings, store))
    await server.start_server(**SERVER_OPTIONS)
    other: Any = await aiohttp_client(server, headers={"X-User-Id": "ann"})
    for gateway in (client, other):
        assert await refusal(await gateway.get(ME)) == (404, "no-account")


async def test_an_event_of_the_closing_ends_other_gateways_copies(
    client: Client, services: FakeServices
) -> None:
    await opened(client)
    await client.get(ME)
    services.payments.closed["ann"] = services.payments.change("ann", 0)
    del services.payments.accounts["ann"]
    assert client.app is not None
    client.app[HUB].dispatch("ann", frames.of_wallet_history(services.payments.feeds["ann"][-1]))
    assert await refusal(await client.get(ME)) == (404, "no-account")


async def test_money_or_a_new_order_keeps_an_account_open(client: Client, services: FakeServices) -> None:
    await opened(client)
    await client.post(TOP_UPS, json={"amount_minor": 5})
    assert await refusal(await client.delete(ME)) == (409, "account-not-empty")
    order = services.orders.place("ann", 5)
    services.orders.place("bob", 5)
    assert await refusal(await client.delete(ME)) == (409, "account-in-use")
    asked = services.does.last("ListOrders")
    assert (asked.user_id, asked.status, asked.limit) == ("ann", "NEW", 1)
    services.payments.change("ann", -5)
    services.orders.move(order.order_id, "FINISHED")
    assert (await client.delete(ME)).status == 204


async def test_closing_takes_no_body(client: Client, services: FakeServices) -> None:
    assert await refusal(await client.delete(ME, json={"force": True})) == (422, "invalid")
    assert services.does.asked == []


async def test_a_closed_account_opens_again_in_its_currency_only(client: Client) -> None:
    await opened(client, "EUR")
    await client.delete(ME)
    again = await client.post(ACCOUNTS, json={"currency": "USD"})
    assert await refusal(again) == (409, "currency-mismatch")
    assert await opened(client, "EUR") == {"balance_minor": 0, "currency": "EUR", "version": 3}
    assert (await (await client.get(ME)).json())["version"] == 3


async def test_a_frozen_account_says_so_and_others_say_nothing(
    client: Client, services: FakeServices
) -> None:
    await opened(client)
    account = services.payments.change("ann", 0)
    account.frozen = True
    assert client.app is not None
    frame = frames.of_wallet_history(services.payments.feeds["ann"][-1])
    client.app[HUB].dispatch("ann", frame)
    for _ in range(2):
        shown = await (await client.get(ME)).json()
        assert shown == {"balance_minor": 0, "currency": "USD", "version": 2, "frozen": True}
    topped_up = await (await client.post(TOP_UPS, json={"amount_minor": 5})).json()
    assert topped_up["frozen"] is True
    account.frozen = False
    assert "frozen" not in await (await client.post(TOP_UPS, json={"amount_minor": 5})).json()


async def test_items_come_back_in_the_order_its_reading_and_the_list(client: Client) -> None:
    items = [ITEM, {"sku": "B", "name": "", "quantity": 1, "unit_price_minor": 0}]
    placed = await (await client.post(ORDERS, json={"amount_minor": 6, "items": items})).json()
    shown = await (await client.get(f"{ORDERS}/{placed['order_id']}")).json()
    listed = await (await client.get(ORDERS)).json()
    assert [order["items"] for order in (placed, shown, listed["items"][0])] == [items] * 3


@pytest.mark.parametrize(
    ("item", "pointer"),
    [
        ({"quantity": 1}, "/items"),
        ({"quantity": 0}, "/items/0/quantity"),
        ({"quantity": -2}, "/items/0/quantity"),
        ({"quantity": 10**30}, "/items/0/quantity"),
        ({"unit_price_minor": -3}, "/items/0/unit_price_minor"),
        ({"unit_price_minor": 10**30}, "/items/0/unit_price_minor"),
    ],
)
async def test_bad_items_are_pointed_at_and_reach_no_service(
    client: Client, services: FakeServices, item: dict[str, int], pointer: str
) -> None:
    response = await client.post(ORDERS, json={"amount_minor": 6, "items": [{**ITEM, **item}]})
    document = await response.json()
    assert (response.status, document["code"]) == (422, "invalid")
    assert [error["pointer"] for error in document["errors"]] == [pointer]
    assert services.does.asked == []


async def test_an_account_is_not_closed_while_orders_cannot_be_asked(
    client: Client, services: FakeServices
) -> None:
    await opened(client)
    services.does.fail["ListOrders"] = grpc.StatusCode.UNAVAILABLE
    assert await refusal(await client.delete(ME)) == (503, "unavailable")
    assert services.does.count("CloseAccount") == 0
