"""Operators' commands as they are typed, before services in memory behind real gRPC."""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from eshop.contracts.proto.payments_v1_pb2 import RefundPaymentReply
from tests.support.fake_services import TOKEN, FakeServices

pytest_plugins = ["tests.support.gateway"]

NO_ID = "01a20499-b516-70c7-84d1-48eb107a5d12"
REASON = ("--reason", "stolen card")


async def eshop(address: str, data: Path, *words: str) -> tuple[int, str]:
    """Run the command; return its exit code and its one line, of whichever stream."""
    environment = os.environ | {
        "ESHOP_ORDERS_GRPC": address,
        "ESHOP_PAYMENTS_GRPC": address,
        "ESHOP_SERVICE_TOKEN": TOKEN,
        "ESHOP_DATA": str(data),
        "LOGNAME": "olga",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "eshop.cli", *words),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    (line,) = (output + errors).decode().splitlines()
    return process.returncode or 0, line


async def test_an_account_is_shown_frozen_and_unfrozen(services: FakeServices, tmp_path: Path) -> None:
    services.payments.change("ann", 70)

    async def run(*words: str) -> tuple[int, str]:
        return await eshop(services.address, tmp_path, "accounts", *words)

    assert await run("show", "ann") == (0, "ann: 70 USD, version 1")
    code, line = await run("freeze", "ann", *REASON)
    assert (code, "is frozen" in line, "CANCELLED with reason account_frozen" in line) == (0, True, True)
    asked = services.does.last("SetFrozen")
    assert (asked.user_id, asked.frozen, asked.reason, asked.operator) == ("ann", True, "stolen card", "olga")
    assert await run("show", "ann") == (0, "ann: 70 USD, version 2, frozen")
    code, line = await run("unfreeze", "ann", *REASON, "--operator", "oscar")
    assert (code, "is not frozen" in line) == (0, True)
    asked = services.does.last("SetFrozen")
    assert (asked.frozen, asked.operator) == (False, "oscar")


async def test_a_refund_says_what_follows_and_a_second_that_nothing_does(
    services: FakeServices, tmp_path: Path
) -> None:
    order_id = services.orders.place("ann", 5).order_id
    words = ("orders", "refund", order_id, "--reason", "broken")
    assert await eshop(services.address, tmp_path, *words) == (
        0,
        "asked for the refund of 5 USD to ann; the order becomes CANCELLED with reason refunded",
    )
    asked = services.does.last("RefundOrder")
    assert (asked.order_id, asked.reason, asked.operator) == (order_id, "broken", "olga")
    services.orders.move(order_id, "CANCELLED", "refunded")
    assert await eshop(services.address, tmp_path, *words) == (
        0,
        "nothing was asked: the order is CANCELLED already, with reason refunded",
    )


async def test_money_for_an_order_that_is_nowhere_is_given_back_by_payments_alone(
    services: FakeServices, tmp_path: Path
) -> None:
    captured = RefundPaymentReply(user_id="ann", status="CAPTURED", amount_minor=5, currency="USD")
    services.payments.decided[NO_ID] = captured
    words = ("orders", "refund", NO_ID, "--reason", "no such order")
    assert await eshop(services.address, tmp_path, *words) == (
        0,
        "orders has no such order; payments gave 5 USD back to ann",
    )
    asked = services.does.last("RefundPayment")
    assert (asked.order_id, asked.reason, asked.operator) == (NO_ID, "no such order", "olga")
    assert await eshop(services.address, tmp_path, *words) == (
        0,
        "orders has no such order; nothing was done: payments gave 5 USD back to ann before",
    )
    services.payments.decided[NO_ID] = RefundPaymentReply(user_id="ann", status="REFUSED")
    assert await eshop(services.address, tmp_path, *words) == (
        0,
        "orders has no such order; nothing was done: payments never took money of ann for it",
    )


@pytest.mark.parametrize("failure", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL])
async def test_payments_gives_nothing_back_while_orders_does_not_say_that_it_has_no_such_order(
    services: FakeServices, tmp_path: Path, failure: grpc.StatusCode
) -> None:
    captured = RefundPaymentReply(user_id="ann", status="CAPTURED", amount_minor=5, currency="USD")
    services.payments.decided[NO_ID] = captured
    services.does.fail["RefundOrder"] = failure
    code, _ = await eshop(services.address, tmp_path, "orders", "refund", NO_ID, *REASON)
    assert (code, services.payments.decided[NO_ID].status) == (1, "CAPTURED")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("accounts", "show", "bob"), "error: bob has no account"),
        (("accounts", "freeze", "bob", *REASON), "error: bob has no account"),
        (("orders", "refund", NO_ID, *REASON), f"error: there is no order {NO_ID}"),
    ],
)
async def test_what_is_not_there_is_said_in_one_line(
    services: FakeServices, tmp_path: Path, words: tuple[str, ...], line: str
) -> None:
    assert await eshop(services.address, tmp_path, *words) == (1, line)


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, "refuses the service token: set ESHOP_SERVICE_TOKEN"),
        (grpc.StatusCode.UNAVAILABLE, "is the shop up?"),
        (grpc.StatusCode.INVALID_ARGUMENT, "told to fail: GetAccount"),
        (grpc.StatusCode.INTERNAL, "failed: INTERNAL: told to fail"),
    ],
)
async def test_a_failure_is_said_in_one_line(
    services: FakeServices, tmp_path: Path, failure: grpc.StatusCode, said: str
) -> None:
    services.does.fail["GetAccount"] = failure
    code, line = await eshop(services.address, tmp_path, "accounts", "show", "ann")
    assert (code, line.startswith("error: "), said in line) == (1, True, True), line


async def test_a_shop_that_is_down_is_asked_after(
    tmp_path: Path, unused_tcp_port_factory: Callable[[], int]
) -> None:
    address = f"127.0.0.1:{unused_tcp_port_factory()}"
    code, line = await eshop(address, tmp_path, "orders", "refund", NO_ID, *REASON)
    assert (code, address in line, "is the shop up?" in line) == (1, True, True), line
    code, line = await eshop(address, tmp_path, "accounts", "show", "ann", "--data", str(tmp_path))
    assert (code, "nothing runs in" in line) == (1, True), line
