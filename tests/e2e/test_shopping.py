"""A shopper and nothing but the gateways: accounts, orders, and the live feed."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator

import pytest

from tests.e2e.conftest import NewShopper
from tests.support.shop_process import Shop, Shopper


@pytest.fixture
async def ann(new_shopper: NewShopper) -> AsyncIterator[Shopper]:
    """A user without an account."""
    async with new_shopper() as shopper:
        yield shopper


async def test_order_is_paid_and_another_is_refused_and_the_socket_sees_both(ann: Shopper) -> None:
    await ann.open_account(1_000)
    async with ann.feed() as feed:
        paid = await ann.order(700, "first")
        refused = await ann.order(700, "second")
        assert (paid["status"], refused["status"]) == ("NEW", "NEW")
        assert (await ann.until_final(paid["order_id"]))["status"] == "FINISHED"
        ended = await ann.until_final(refused["order_id"])
        assert (ended["status"], ended["reason"]) == ("CANCELLED", "insufficient_funds")
        await feed.until(order_id=refused["order_id"], status="CANCELLED", reason="insufficient_funds")
    statuses = [
        (f["order_id"], f["status"], f["version"]) for f in feed.frames if f.get("stream") == "orders"
    ]
    assert [s[1:] for s in statuses if s[0] == paid["order_id"]] == [("NEW", 1), ("FINISHED", 2)]
    assert [s[1:] for s in statuses if s[0] == refused["order_id"]] == [("NEW", 1), ("CANCELLED", 2)]
    assert feed.numbers("orders") == [1, 2, 3, 4]
    _, _, account = await ann.call("GET", "/accounts/me")
    assert account["balance_minor"] == 300


async def test_order_without_an_account_is_cancelled(ann: Shopper) -> None:
    order = await ann.order(1, "k")
    ended = await ann.until_final(order["order_id"])
    assert (ended["status"], ended["reason"]) == ("CANCELLED", "no_account")


async def test_order_in_another_currency_is_cancelled(ann: Shopper) -> None:
    await ann.open_account(100)
    _, _, order = await ann.call("POST", "/orders", json={"amount_minor": 5, "currency": "EUR"})
    assert (await ann.until_final(order["order_id"]))["reason"] == "currency_mismatch"


async def test_cancelled_order_gives_the_money_back(ann: Shopper) -> None:
    await ann.open_account(100)
    order = await ann.order(60, "k")
    await ann.until_final(order["order_id"])
    async with ann.feed() as feed:
        path, key = f"/orders/{order['order_id']}/cancel", {"Idempotency-Key": "c"}
        status, _, first = await ann.call("POST", path, headers=key)
        assert status == 202
        await feed.until(order_id=order["order_id"], status="CANCELLED", reason="user", version=3)
        status, headers, again = await ann.call("POST", path, headers=key)
        assert (status, again, headers["Idempotency-Replayed"]) == (202, first, "true")
    _, _, account = await ann.call("GET", "/accounts/me")
    assert account["balance_minor"] == 100


async def test_same_key_at_two_gateways_at_once_is_one_order(ann: Shopper, shop: Shop) -> None:
    await ann.open_account(100)
    first, second = shop.gateways()
    there = Shopper(ann._session, second, ann.user_id)
    assert ann.base.startswith(first)
    orders = await asyncio.gather(*(shopper.order(10, "same") for shopper in (ann, there) * 10))
    assert len({order["order_id"] for order in orders}) == 1
    await ann.until_final(orders[0]["order_id"])
    _, _, account = await ann.call("GET", "/accounts/me")
    assert account["balance_minor"] == 90


async def test_twenty_requests_at_once_open_one_account(ann: Shopper) -> None:
    answers = await asyncio.gather(*(ann.call("POST", "/accounts", json={}) for _ in range(20)))
    assert sorted(status for status, _, _ in answers) == [201] + [409] * 19
    assert {body["code"] for status, _, body in answers if status == 409} == {"account-exists"}


async def test_feed_resumes_at_the_other_gateway_without_a_gap(ann: Shopper, shop: Shop) -> None:
    await ann.open_account(1_000)
    there = Shopper(ann._session, shop.gateways()[1], ann.user_id)
    async with ann.feed() as here:
        first = await ann.order(10, "1")
        seen = await here.until(order_id=first["order_id"], status="FINISHED")
    second = await ann.order(10, "2")
    await ann.until_final(second["order_id"])
    async with there.feed(cursor=seen["id"]) as resumed:
        await resumed.until(order_id=second["order_id"], status="FINISHED")
    numbers = here.numbers("orders") + resumed.numbers("orders")
    assert numbers == [1, 2, 3, 4]


async def test_nobody_sees_what_is_anothers(ann: Shopper, new_shopper: NewShopper) -> None:
    await ann.open_account(100)
    async with new_shopper(1) as bob, bob.feed() as feed:
        order = await ann.order(10, "k")
        await ann.until_final(order["order_id"])
        status, _, body = await bob.call("GET", f"/orders/{order['order_id']}")
        missing, _, nothing = await bob.call("GET", "/orders/01890000-0000-7000-8000-000000000000")
        assert (status, missing) == (404, 404)
        assert {**body, "trace_id": ""} == {**nothing, "trace_id": ""}
        own = await bob.order(5, "own")
        await feed.until(order_id=own["order_id"], status="CANCELLED")
    assert {frame.get("order_id") for frame in feed.frames} == {None, own["order_id"]}


async def test_pages_of_orders_hold_each_order_once_newest_first(ann: Shopper) -> None:
    made = [(await ann.order(1, str(number)))["order_id"] for number in range(5)]
    path, seen = "/orders?limit=2", []
    while path:
        status, _, page = await ann.call("GET", path)
        assert status == 200
        seen += [order["order_id"] for order in page["items"]]
        path = f"/orders?limit=2&cursor={page['next_cursor']}" if page["next_cursor"] else ""
    assert seen == made[::-1]


async def test_second_read_of_an_order_comes_from_the_cache(ann: Shopper) -> None:
    await ann.open_account(100)
    order = await ann.order(10, "k")
    await ann.until_final(order["order_id"])
    _, _, first = await ann.call("GET", f"/orders/{order['order_id']}")
    status, headers, second = await ann.call("GET", f"/orders/{order['order_id']}")
    assert (status, second) == (200, first)
    assert "Age" in headers, "a read that comes from the cache says so"
    status, _, _ = await ann.call(
        "GET", f"/orders/{order['order_id']}", headers={"If-None-Match": headers["ETag"]}
    )
    assert status == 304


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"amount_minor": 0}, 422),
        ({"amount_minor": -1}, 422),
        ({"amount_minor": 1.5}, 422),
        ({"amount_minor": 2**31}, 422),
        ({"amount_minor": 2**53 + 1}, 422),
        ({"amount_minor": 2**63}, 422),
        ({"amount_minor": 10**30}, 422),
        ({"amount_minor": "5"}, 422),
        ({"amount_minor": True}, 422),
        ({"amount_minor": None}, 422),
        ({}, 422),
        ({"amount_minor": 5, "status": "FINISHED"}, 422),
        ({"amount_minor": 5, "user_id": "bob"}, 422),
        ({"amount_minor": 5, "currency": "usd"}, 422),
        ({"amount_minor": 5, "description": "a\x00b"}, 422),
        ([], 400),
    ],
)
async def test_bad_order_is_refused_and_leaves_nothing(ann: Shopper, body: object, status: int) -> None:
    answered, headers, problem = await ann.call("POST", "/orders", json=body)
    assert (answered, headers["Content-Type"].split(";")[0]) == (status, "application/problem+json")
    assert problem["status"] == status
    _, _, page = await ann.call("GET", "/orders")
    assert page["items"] == []


async def test_key_used_for_another_body_is_refused(ann: Shopper) -> None:
    await ann.order(5, "k")
    status, _, problem = await ann.call(
        "POST", "/orders", json={"amount_minor": 6}, headers={"Idempotency-Key": "k"}
    )
    assert (status, problem["code"]) == (422, "idempotency-key-reused")


async def test_replayed_request_says_so(ann: Shopper) -> None:
    first = await ann.order(5, "k")
    status, headers, again = await ann.call(
        "POST", "/orders", json={"amount_minor": 5}, headers={"Idempotency-Key": "k"}
    )
    assert (status, again, headers["Idempotency-Replayed"]) == (201, first, "true")


async def test_nobody_is_not_served(ann: Shopper) -> None:
    async with ann._session.get(f"{ann.base}/accounts/me") as answer:
        assert answer.status == 401


async def test_lone_order_does_not_wait_for_others(ann: Shopper, capsys: pytest.CaptureFixture[str]) -> None:
    """From POST to push at 10 orders a second; printed, since the machine decides how fast it is."""
    await ann.open_account(1_000)
    pushed_ms: list[float] = []
    async with ann.feed() as feed:
        for number in range(40):
            begun = time.perf_counter()
            order = await ann.order(1, str(number))
            await feed.until(order_id=order["order_id"], status="FINISHED")
            pushed_ms.append((time.perf_counter() - begun) * 1_000)
            await asyncio.sleep(max(0.0, 0.1 - (time.perf_counter() - begun)))
    with capsys.disabled():
        p95 = statistics.quantiles(pushed_ms, n=20)[-1]
        print(f"\nPOST to push, 10 orders/s: median {statistics.median(pushed_ms):.0f} ms, p95 {p95:.0f} ms")  # noqa: T201
    assert len(pushed_ms) == 40
