"""The life of an order and of its money: items, statement, refund, freezing, closing, reopening."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.e2e.conftest import NewShopper
from tests.support.shop_process import Shop, Shopper

NO_ID = "01a20499-b516-70c7-84d1-48eb107a5d12"
REASON = ("--reason", "a test")
ITEMS = [
    {"sku": "lamp-1", "name": "Lamp", "quantity": 2, "unit_price_minor": 300},
    {"sku": "gift", "name": "", "quantity": 1, "unit_price_minor": 0},
]


@pytest.fixture
async def ann(new_shopper: NewShopper) -> AsyncIterator[Shopper]:
    """A user without an account."""
    async with new_shopper() as shopper:
        yield shopper


def eshop(shop: Shop, *words: str, **environment: str) -> tuple[int, str]:
    """Run the command as an operator of this shop; return its exit code and what it says."""
    which = () if "ESHOP_DATA" in environment else ("--data", str(shop.data))
    told = subprocess.run(
        [sys.executable, "-m", "eshop.cli", *words, *which],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )
    return told.returncode, (told.stdout + told.stderr).strip()


async def ended(shopper: Shopper, amount_minor: int, key: str) -> tuple[str, str | None]:
    """Place an order, and return how it ends."""
    order = await shopper.order(amount_minor, key)
    final = await shopper.until_final(order["order_id"])
    return final["status"], final["reason"]


async def account(shopper: Shopper) -> dict[str, Any]:
    """Return the user's account."""
    status, _, body = await shopper.call("GET", "/accounts/me")
    assert status == 200, body
    return dict(body)


async def test_statement_runs_over_everything_that_moved_and_ends_in_the_balance(ann: Shopper) -> None:
    assert (await ann.call("GET", "/accounts/me/transfers"))[2] == {"items": [], "next_cursor": None}
    await ann.open_account(0)
    for amount, reference in ((1_000, f"{ann.user_id}-1"), (500, None)):
        body = {"amount_minor": amount, **({"reference": reference} if reference else {})}
        status, _, _ = await ann.call("POST", "/accounts/me/top-ups", json=body)
        assert status == 201
    order = await ann.order(700, "k")
    await ann.until_final(order["order_id"])
    async with ann.feed() as feed:
        await ann.call("POST", f"/orders/{order['order_id']}/cancel")
        await feed.until(order_id=order["order_id"], status="CANCELLED")
    assert await ended(ann, 200, "kept") == ("FINISHED", None)
    path, legs, pages = "/accounts/me/transfers?limit=2", [], 0
    while path:
        status, headers, page = await ann.call("GET", path)
        assert (status, "Link" in headers) == (200, page["next_cursor"] is not None)
        legs += page["items"]
        pages += 1
        path = f"/accounts/me/transfers?limit=2&cursor={page['next_cursor']}" if page["next_cursor"] else ""
    assert pages == 3
    assert [(leg["kind"], leg["amount_minor"], leg["balance_minor"]) for leg in legs] == [
        ("capture", -200, 1_300),
        ("refund", 700, 1_500),
        ("capture", -700, 800),
        ("top_up", 500, 1_500),
        ("top_up", 1_000, 1_000),
    ]
    assert [leg["version"] for leg in legs] == [6, 5, 4, 3, 2]
    assert [leg["order_id"] for leg in legs[1:]] == [order["order_id"]] * 2 + [None] * 2
    assert [leg["reference"] for leg in legs] == [None] * 4 + [f"{ann.user_id}-1"]
    assert sum(leg["amount_minor"] for leg in legs) == (await account(ann))["balance_minor"] == 1_300


async def test_account_is_closed_when_empty_and_opens_again_in_its_currency(ann: Shopper, shop: Shop) -> None:
    assert (await ann.call("DELETE", "/accounts/me"))[0] == 404
    await ann.open_account(100)
    status, _, problem = await ann.call("DELETE", "/accounts/me")
    assert (status, problem["code"]) == (409, "account-not-empty")
    assert await ended(ann, 100, "all") == ("FINISHED", None)
    before = await account(ann)
    assert (await account(ann)) == before, "a second look, so that the cache has it"
    async with ann.feed() as feed:
        status, _, body = await ann.call("DELETE", "/accounts/me")
        assert (status, body) == (204, None)
        frame = await feed.until(type="wallet.balance")
        assert (frame["balance_minor"], frame["version"]) == (0, before["version"] + 1)
    for _ in range(3):
        status, _, problem = await ann.call("GET", "/accounts/me")
        assert (status, problem["code"]) == (404, "no-account")
    assert (await ann.call("DELETE", "/accounts/me"))[0] == 404
    assert await ended(ann, 1, "late") == ("CANCELLED", "no_account")
    status, _, problem = await ann.call("POST", "/accounts", json={"currency": "EUR"})
    assert (status, problem["code"]) == (409, "currency-mismatch")
    status, _, again = await ann.call("POST", "/accounts", json={})
    assert (status, again["version"]) == (201, before["version"] + 2)
    there = Shopper(ann._session, shop.gateways()[1], ann.user_id)
    assert await account(ann) == again == await account(there)
    _, _, page = await ann.call("GET", "/accounts/me/transfers")
    assert [leg["kind"] for leg in page["items"]] == ["capture", "top_up"], "the past stays"


async def test_frozen_account_pays_no_order_until_an_operator_lifts_that(ann: Shopper, shop: Shop) -> None:
    await ann.open_account(100)
    async with ann.feed() as feed:
        code, said = eshop(shop, "accounts", "freeze", ann.user_id, *REASON, "--operator", "olga")
        assert (code, "is frozen" in said) == (0, True), said
        await feed.until(type="wallet.balance", version=3)
        assert await account(ann) == {"balance_minor": 100, "currency": "USD", "version": 3, "frozen": True}
        assert await ended(ann, 10, "frozen") == ("CANCELLED", "account_frozen")
        code, said = eshop(shop, "accounts", "unfreeze", ann.user_id, *REASON)
        assert code == 0, said
        await feed.until(type="wallet.balance", version=4)
    assert "frozen" not in await account(ann)
    assert await ended(ann, 10, "thawed") == ("FINISHED", None)
    # The shop in the default folder is found on its moved ports.
    code, said = eshop(shop, "accounts", "show", ann.user_id, ESHOP_DATA=str(shop.data))
    assert (code, said) == (0, f"{ann.user_id}: 90 USD, version 5")
    with shop.database("payments") as query:
        rows = query("SELECT * FROM operator_actions WHERE user_id = %s", ann.user_id)
    assert len(rows) == 2, "who did it and why is on record"


async def test_operator_refunds_a_finished_order(ann: Shopper, shop: Shop) -> None:
    await ann.open_account(100)
    order = await ann.order(60, "k")
    assert (await ann.until_final(order["order_id"]))["status"] == "FINISHED"
    async with ann.feed() as feed:
        code, said = eshop(shop, "orders", "refund", order["order_id"], *REASON)
        assert (code, "becomes CANCELLED with reason refunded" in said) == (0, True), said
        # Each stream has its own order; between the two there is none.
        wanted = {
            "wallet": {"type": "wallet.balance", "balance_minor": 100},
            "orders": {"order_id": order["order_id"], "status": "CANCELLED", "reason": "refunded"},
        }
        for _ in range(2):
            frame = await feed.next()
            assert wanted.pop(frame["stream"]).items() <= frame.items()
    _, _, refunded = await ann.call("GET", f"/orders/{order['order_id']}")
    assert (refunded["status"], refunded["reason"], refunded["version"]) == ("CANCELLED", "refunded", 3)
    assert (await account(ann))["balance_minor"] == 100
    code, said = eshop(shop, "orders", "refund", order["order_id"], *REASON)
    assert (code, said) == (0, "nothing was asked: the order is CANCELLED already, with reason refunded")
    assert (await account(ann))["balance_minor"] == 100


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        (("accounts", "show", "nobody-at-all"), {}, "error: nobody-at-all has no account"),
        (("accounts", "freeze", "nobody-at-all", *REASON), {}, "error: nobody-at-all has no account"),
        (("orders", "refund", NO_ID, *REASON), {}, f"error: there is no order {NO_ID}"),
        (("orders", "refund", "x", *REASON), {}, "error: there is no order x"),
        (("orders", "refund", NO_ID, "--reason", " "), {}, "error: reason is missing"),
        (("accounts", "show", "ann"), {"ESHOP_SERVICE_TOKEN": "wrong"}, "refuses the service token"),
    ],
)
def test_operators_mistake_is_said_in_one_line(
    shop: Shop, words: tuple[str, ...], environment: dict[str, str], said: str
) -> None:
    code, told = eshop(shop, *words, **environment)
    assert (code, said in told, len(told.splitlines())) == (1, True, 1), told


async def test_items_come_back_as_they_were_sent(ann: Shopper, shop: Shop) -> None:
    body = {"amount_minor": 600, "items": ITEMS}
    status, headers, placed = await ann.call("POST", "/orders", json=body)
    assert status == 201, placed
    path = headers["Location"].removeprefix("/api/v1")
    there = Shopper(ann._session, shop.gateways()[1], ann.user_id)
    _, _, shown = await there.call("GET", path)
    _, _, page = await ann.call("GET", "/orders")
    assert [order["items"] for order in (placed, shown, page["items"][0])] == [ITEMS] * 3
    status, _, problem = await ann.call("POST", "/orders", json={**body, "amount_minor": 599})
    assert (status, [flaw["pointer"] for flaw in problem["errors"]]) == (422, ["/items"])
