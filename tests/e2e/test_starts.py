"""Starts that go wrong, in part or altogether: what is served, what is said, and what is left to read."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from eshop.cluster.folder import TEMPORARY_MARK
from eshop.cluster.guardian import wait_until
from tests.support.builders import new_id
from tests.support.shop_process import READY_SECONDS_MAX, Shop, Shopper, running_shop

BACK_SECONDS_MAX = 90


def obstacle(data: Path) -> Path:
    """Return a file where projections want a folder."""
    return data / "services" / "projections" / "faust"


def put_obstacle(data: Path) -> None:
    """Let projections have no place for their tables; an ephemeral run takes a folder so marked."""
    obstacle(data).parent.mkdir(parents=True)
    obstacle(data).touch()
    (data / TEMPORARY_MARK).touch()


@pytest.fixture(scope="module")
def maimed_shop() -> Iterator[Shop]:
    """A shop whose projections can't start."""
    with running_shop(prepare=put_obstacle) as running:
        yield running


@pytest.mark.timeout(300)
async def test_orders_are_paid_where_projections_cannot_start(maimed_shop: Shop) -> None:
    async with aiohttp.ClientSession() as session:
        shopper = Shopper(session, maimed_shop.gateways()[0], f"user-{new_id()}")
        await shopper.open_account(1_000)
        order = await shopper.order(700, "a-key")
        assert (await shopper.until_final(order["order_id"]))["status"] == "FINISHED"


@pytest.mark.timeout(300)
def test_what_is_missing_is_said_and_tried_again(maimed_shop: Shop) -> None:
    said = (maimed_shop.data.parent / "up.log").read_text()
    cause = "cannot write to the data folder (File exists), see ESHOP_DATA"
    assert re.search(rf"projections ended with code 1 \(.*{re.escape(cause)}", said)
    assert "without projections" in said
    assert said.index("is ready after") < said.index("without projections")
    ready = {name: process["ready"] for name, process in maimed_shop.processes().items()}
    assert [name for name in ready if not ready[name]] == ["projections"]

    obstacle(maimed_shop.data).unlink()
    assert wait_until(lambda: maimed_shop.processes()["projections"]["ready"], BACK_SECONDS_MAX)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder for temporary files that other users of the machine may enter, as Postgres' must."""
    with tempfile.TemporaryDirectory(prefix="eshop-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.timeout(300)
def test_a_start_that_fails_says_why_and_keeps_its_logs(place: Path) -> None:
    failed = subprocess.run(
        [sys.executable, "-m", "eshop.cli", "up", "--ephemeral"],
        env={**os.environ, "ESHOP_TOPIC_REPLICATION": "3", "TMPDIR": str(place)},
        capture_output=True,
        text=True,
        check=False,
        timeout=READY_SECONDS_MAX,
    )
    assert failed.returncode == 1
    assert re.search(r"error: (orders|payments) does not start:\n", failed.stderr)
    assert re.search(r"TopicMismatch: .* has 1 copies, ESHOP_TOPIC_REPLICATION says 3", failed.stderr)
    assert "Closing event loop" not in failed.stderr
    kept = re.search(r"all logs: (.*)", failed.stderr)
    assert kept is not None
    assert "TopicMismatch" in (Path(kept[1]) / "orders.log").read_text()
    assert [path.name for path in place.iterdir()] == [Path(kept[1]).parent.name]


def test_ctrl_c_at_once_is_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "eshop.cli", "status", "--data", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as started:
        assert started.stdout is not None
        said = next(line for line in started.stdout if line.endswith(" typer.main\n"))  # far from the end
        started.send_signal(signal.SIGINT)
        said += started.communicate(timeout=60)[0]
    assert "Traceback" not in said
    assert "eshop.cli.main" not in said
