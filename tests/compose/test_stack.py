"""The shop in containers, as its user starts it: `make compose-test`. Builds the image, takes its ports."""

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.support.builders import new_id
from tests.support.shop_process import Shopper

ROOT = Path(__file__).parents[2]
COMPOSE = ("docker", "compose", "--project-name", "eshop-test")
#: The first time, images are fetched and one is built.
UP_SECONDS_MAX = 1500
IMAGE_BYTES_MAX = 400 * 1000**2
GATEWAYS = "http://127.0.0.1:8000"
PROJECTIONS = "http://127.0.0.1:6068"
KAFKA_UI = "http://127.0.0.1:8080"

pytestmark = [pytest.mark.engine, pytest.mark.timeout(3600)]


def run(*command: str, seconds_max: float = 300) -> str:
    """Run a command at the project's root; return what it printed, or fail with it."""
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=seconds_max)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def has_engine() -> bool:
    if not shutil.which("docker"):
        return False
    asked = (("docker", "compose", "version"), ("docker", "version"))
    return all(
        subprocess.run(words, check=False, capture_output=True, timeout=60).returncode == 0 for words in asked
    )


@pytest.fixture(scope="module")
def stack() -> Iterator[None]:
    """The whole shop, healthy; gone with its volumes afterwards."""
    if not has_engine():
        pytest.skip("no container engine: Docker with Compose is needed, and running")
    try:
        run(*COMPOSE, "up", "--detach", "--build", "--wait", seconds_max=UP_SECONDS_MAX)
        yield
    except BaseException:
        print(run(*COMPOSE, "ps", "--all"), run(*COMPOSE, "logs", "--tail", "20"))  # noqa: T201
        raise
    finally:
        run(*COMPOSE, "down", "--volumes", "--remove-orphans")


def running() -> Counter[str]:
    """Count the healthy containers of each service."""
    lines = run(*COMPOSE, "ps", "--format", "json").splitlines()
    containers = [json.loads(line) for line in lines]
    return Counter(each["Service"] for each in containers if each["Health"] == "healthy")


async def order(session: aiohttp.ClientSession) -> None:
    """Go shopping, with the feed open, all through the proxy."""
    shopper = Shopper(session, GATEWAYS, f"user-{new_id()}")
    await shopper.open_account(1000)
    async with shopper.feed() as feed:
        placed = await shopper.order(700, key="first")
        assert (await shopper.until_final(placed["order_id"]))["status"] == "FINISHED"
        await feed.until(type="order.status", status="FINISHED")


async def totals(session: aiohttp.ClientSession) -> dict[str, int]:
    """Return the orders by status that all projections workers know of."""
    async with session.get(f"{PROJECTIONS}/projections/totals") as answer:
        return dict((await answer.json())["orders"])


async def test_orders_are_paid_by_one_of_each_and_by_many(stack: None) -> None:
    async with aiohttp.ClientSession() as session:
        await order(session)
        scale = {"orders": 3, "payments": 3, "gateway": 2, "projections": 2}
        words = [word for name, count in scale.items() for word in ("--scale", f"{name}={count}")]
        run(*COMPOSE, "up", "--detach", "--wait", *words, seconds_max=UP_SECONDS_MAX)
        assert {name: running()[name] for name in scale} == scale
        for _ in range(6):
            await order(session)
        while (found := await totals(session)) != {"NEW": 0, "FINISHED": 7, "CANCELLED": 0}:
            assert found["FINISHED"] <= 7


async def test_kafka_ui_shows_the_cluster(stack: None) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{KAFKA_UI}/api/clusters") as answer:
        assert [(cluster["name"], cluster["readOnly"]) for cluster in await answer.json()] == [
            ("eshop", True)
        ]


def test_processes_are_nobody_and_write_nowhere_but_to_their_folder(stack: None) -> None:
    shown = run(*COMPOSE, "exec", "-T", "orders", "bash", "-c", "id -u; touch /x 2>&1 || touch /data/x")
    assert shown.splitlines()[0] == "10001"
    assert "Read-only file system" in shown


async def test_operators_act_from_a_container(stack: None) -> None:
    async with aiohttp.ClientSession() as session:
        shopper = Shopper(session, GATEWAYS, f"user-{new_id()}")
        await shopper.open_account(300)
    shown = run(*COMPOSE, "exec", "-T", "gateway", "eshop", "accounts", "show", shopper.user_id)
    assert "300 USD" in shown


def test_image_is_small(stack: None) -> None:
    image = run(*COMPOSE, "images", "--format", "json", "orders")
    (found, *_) = json.loads(image)
    size = int(run("docker", "image", "inspect", "--format", "{{.Size}}", found["ID"]))
    assert size < IMAGE_BYTES_MAX
