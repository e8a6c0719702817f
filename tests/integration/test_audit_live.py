"""The audit beside a shop that works: green under load and after it, and a metric on a timer."""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from eshop.audit.audit import Wanted
from eshop.audit.audit import audit as run_audit
from eshop.cli.audit import find_sources
from eshop.cluster.ports import free_port
from tests.integration.audit_world import Silent, oldest_snapshot, slow_down
from tests.support.builders import new_id
from tests.support.shop_process import Shop, Shopper

CUSTOMERS = 12
ORDERS_EACH = 25
METRICS_SECONDS_MAX = 60


def command(shop: Shop, *words: str) -> list[str]:
    """Return the command line of an audit of the shop."""
    return [sys.executable, "-m", "eshop.cli", "audit", "--data", str(shop.data), *words]


async def audit(shop: Shop, *words: str) -> tuple[int, dict[str, Any]]:
    """Run one audit; return its exit code and its report."""
    process = await asyncio.create_subprocess_exec(
        *command(shop, "--json", *words), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return process.returncode or 0, json.loads(out)


async def shop_around(shopper: Shopper, answers: list[dict[str, Any]]) -> None:
    """Order more than there is money for, and cancel some; note what is answered."""
    await shopper.open_account(1_000)
    for number in range(ORDERS_EACH):
        key = f"key-{number}"
        order = await shopper.order(90, key)
        answers.append(
            {
                "status": 201,
                "order_id": order["order_id"],
                "idempotency_key": key,
                "user_id": shopper.user_id,
            }
        )
        if number % 4 == 0:
            await shopper.call("POST", f"/orders/{order['order_id']}/cancel")


def broken(report: dict[str, Any]) -> list[Any]:
    """Return what was found, warnings apart."""
    return [one for one in report["invariants"] if one["broken"] and not one["warning"]]


@pytest.mark.timeout(300)
async def test_audit_is_green_under_load_and_after_it(shop: Shop, tmp_path: Path) -> None:
    answers: list[dict[str, Any]] = []
    gateways = shop.gateways()
    async with aiohttp.ClientSession() as session:
        shoppers = [
            Shopper(session, gateways[number % len(gateways)], f"audited-{new_id()}")
            for number in range(CUSTOMERS)
        ]
        load = asyncio.gather(*(shop_around(shopper, answers) for shopper in shoppers))
        looked = 0
        while not load.done() or not looked:
            code, report = await audit(shop, "--settle", "0")
            assert (code, broken(report)) == (0, [])
            looked += 1
        await load
    path = tmp_path / "answers"
    path.write_text("".join(json.dumps(one) + "\n" for one in answers))
    code, report = await audit(shop, "--settle", "60", "--answers", str(path))
    assert (code, broken(report)) == (0, [])
    assert report["checked"]["answers"] == CUSTOMERS * ORDERS_EACH <= report["checked"]["orders"]


@pytest.mark.timeout(300)
async def test_slow_audit_is_green_under_load_and_holds_no_snapshot(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Orders come, are paid and cancelled between any two of its pages."""
    bound = 10
    slow_down(monkeypatch, seconds=0.01, rows=40)
    monkeypatch.setattr("eshop.audit.databases.SNAPSHOT_SECONDS_MAX", bound)
    sources = find_sources(shop.data, None, None)
    postgres = shop.ports["postgres"]["postgres"]
    answers: list[dict[str, Any]] = []
    async with aiohttp.ClientSession() as session:
        shoppers = [Shopper(session, shop.gateways()[0], f"slow-{new_id()}") for _ in range(CUSTOMERS)]
        load = asyncio.gather(*(shop_around(shopper, answers) for shopper in shoppers))
        with oldest_snapshot(f"postgresql://postgres:postgres@127.0.0.1:{postgres}/postgres") as ages:
            looked = 0
            while not load.done() or not looked:
                report = await run_audit(Wanted(sources, Silent(), settle_seconds=0))
                assert [one for one in report.as_json()["invariants"] if one["broken"]] == []
                looked += 1
        await load
    assert 0 < max(ages) < bound


async def test_timer_serves_the_verdict_as_a_metric(shop: Shop) -> None:
    address = f"127.0.0.1:{free_port(set())}"
    words = command(shop, "--every", "1", "--listen", address, "--json", "--settle", "0")
    began = time.time()
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.DEVNULL)
    try:
        metrics = await asyncio.wait_for(until_judged(process, address), METRICS_SECONDS_MAX)
    finally:
        process.terminate()
        await process.wait()
    assert metrics['eshop_audit_violations{invariant="3"}'] == 0
    assert metrics["eshop_audit_last_success_timestamp_seconds"] >= began
    assert metrics["eshop_audit_duration_seconds"] > 0


async def until_judged(process: asyncio.subprocess.Process, address: str) -> dict[str, float]:
    """Return the metrics once there has been a verdict."""
    async with aiohttp.ClientSession() as session:
        while True:
            assert process.returncode is None, "the audit has ended"
            try:
                async with session.get(f"http://{address}/metrics") as answer:
                    lines = (await answer.text()).splitlines()
            except aiohttp.ClientError:
                lines = []
            metrics = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
            if float(metrics.get("eshop_audit_last_judged_timestamp_seconds", 0)):
                return {name: float(value) for name, value in metrics.items()}
            await asyncio.sleep(0.2)
