"""What an operator sees and does at a terminal, on a running shop: dead letters, and an order's timeline."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.e2e.conftest import NewShopper
from tests.support.builders import new_id
from tests.support.shop_process import Shop

WAIT_SECONDS_MAX = 30
#: What no other test orders for.
STRANGE_AMOUNT = 1_313_131
CAUSE = "SQLSTATE 23514"


async def eshop(shop: Shop, *words: str) -> tuple[int, str]:
    """Run the command on the shop; return its exit code and all it says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "eshop.cli", *words, "--data", str(shop.data)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def listed(shop: Shop, *words: str) -> Any:
    """Return what `eshop deadletters list` tells programs."""
    code, output = await eshop(shop, "deadletters", "list", "--json", *words)
    assert code == 0, output
    return json.loads(output)


@asynccontextmanager
async def refusing_payments(shop: Shop) -> AsyncIterator[None]:
    """Have the payments database refuse orders of the strange amount."""
    name = "strange_amount"
    with shop.database("payments") as query:
        query(
            f"ALTER TABLE payments ADD CONSTRAINT {name} CHECK (amount_minor <> {STRANGE_AMOUNT}) NOT VALID"
        )
        query("COMMIT")
        try:
            yield
        finally:
            query(f"ALTER TABLE payments DROP CONSTRAINT {name}")
            query("COMMIT")


async def until_parked(shop: Shop, order_ids: list[str]) -> dict[str, str]:
    """Wait until the orders' messages are parked; return their dead letters by order."""
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while True:
            letters = (await listed(shop, "--cause", CAUSE))["letters"]
            found = {letter["order_id"]: letter["dead_letter_id"] for letter in letters}
            if found.keys() >= set(order_ids):
                return {order_id: found[order_id] for order_id in order_ids}


async def test_what_payments_refused_is_listed_shown_replayed_and_discarded(
    shop: Shop, new_shopper: NewShopper
) -> None:
    async with new_shopper() as ann:
        await ann.open_account(10 * STRANGE_AMOUNT)
        async with refusing_payments(shop):
            orders = [(await ann.order(STRANGE_AMOUNT, f"key-{n}"))["order_id"] for n in range(2)]
            letters = await until_parked(shop, orders)
            replayed, discarded = (letters[order_id] for order_id in orders)
            code, said = await eshop(shop, "deadletters", "list")
            assert (code, CAUSE in said, replayed in said) == (0, True, True), said
            code, said = await eshop(shop, "deadletters", "show", replayed)
            assert (code, f'"order_id":"{orders[0]}"' in said, "strange_amount" in said) == (0, True, True)
            code, said = await eshop(shop, "deadletters", "replay", replayed, "--reason", "too soon")
            assert (code, "still can't be handled, and stays parked" in said) == (1, True), said

        reason = ("--reason", "the check is gone", "--operator", "olga")
        assert (await eshop(shop, "deadletters", "discard", discarded, *reason))[0] == 0
        code, said = await eshop(shop, "deadletters", "replay", "--cause", CAUSE, *reason)
        assert (code, said) == (0, f"{replayed} replayed\n1 replayed\n")
        assert (await ann.until_final(orders[0]))["status"] == "FINISHED"
        code, said = await eshop(shop, "deadletters", "replay", replayed, discarded, *reason)
        assert (code, "was replayed before" in said, "was discarded before" in said) == (1, True, True), said

        told = json.loads((await eshop(shop, "deadletters", "show", replayed, "--json"))[1])
        assert [(act["action"], act["operator"]) for act in told["actions"]] == [("replay", "olga")]
        assert (await listed(shop, "--cause", CAUSE))["letters"] == []
        code, said = await eshop(shop, "timeline", orders[0])
        assert (code, "as dead letter" in said, "by olga: the check is gone" in said) == (0, True, True), said
        # The one that was discarded is never charged: its end is asked for, by the user here, and comes.
        assert (await ann.call("POST", f"/orders/{orders[1]}/cancel"))[0] == 202
        assert (await ann.until_final(orders[1]))["status"] == "CANCELLED"
        assert (await ann.call("GET", "/accounts/me"))[2]["balance_minor"] == 9 * STRANGE_AMOUNT


async def test_dead_letter_that_is_not_there_is_said(shop: Shop) -> None:
    unknown = new_id()
    code, said = await eshop(shop, "deadletters", "show", unknown)
    assert (code, said) == (1, f"error: there is no dead letter {unknown}\n")
    code, said = await eshop(shop, "deadletters", "discard", unknown, "--reason", "r")
    assert (code, said) == (1, f"there is no dead letter {unknown}\n0 discarded, 1 not\n")
    code, said = await eshop(shop, "deadletters", "replay", "--reason", "r")
    assert (code, said) == (1, "error: say which: either ids, or a --cause\n")


async def test_timeline_has_all_stations_for_operator_and_user(shop: Shop, new_shopper: NewShopper) -> None:
    async with new_shopper() as ann, new_shopper(1) as bob:
        await ann.open_account(1_000)
        order_id = (await ann.order(700, "the-key"))["order_id"]
        await ann.until_final(order_id)
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            while True:
                code, said = await eshop(shop, "timeline", order_id, "--json")
                assert code == 0, said
                told = json.loads(said)
                if not told["waiting"] and kinds(told).count("published") == 3:
                    break
        stations = [(step["service"], step["what"]) for step in told["steps"]]
        expected = [
            ("orders", "requested"),
            ("payments", "received"),
            ("payments", "decided"),
            ("payments", "posted"),
            ("orders", "received"),
            ("orders", "changed"),
        ]
        assert [stations.index(station) for station in expected] == sorted(
            stations.index(station) for station in expected
        )
        assert kinds(told).count("posted") == 2
        assert kinds(told).count("received") == 3
        assert told["removed"] == []
        code, said = await eshop(shop, "timeline", order_id)
        assert (code, "OrderCreated" in said, "capture wallet -700 USD" in said) == (0, True, True), said

        status, _, seen = await ann.call("GET", f"/orders/{order_id}/events")
        assert (status, seen["steps"]) == (200, told["steps"])
        assert (await bob.call("GET", f"/orders/{order_id}/events"))[0] == 404
        unknown = new_id()
        assert (await ann.call("GET", f"/orders/{unknown}/events"))[0] == 404
        assert await eshop(shop, "timeline", unknown) == (1, f"error: there is no order {unknown}\n")


def kinds(told: Any) -> list[str]:
    return [step["what"] for step in told["steps"]]
