"""The whole shop on a machine whose environment is against it: every hostile variable at once."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.support.builders import new_id
from tests.support.shop_process import Shop, Shopper, running_shop

FOLDER = "мой магазин, café ß"
NOBODY = "http://127.0.0.1:9"
PROXIES = [f"{kind}_proxy" for kind in ("http", "https", "all", "grpc")]
#: What Kubernetes tells every container of the Services `web`, `eshop` and `eshop-orders`.
SERVICES = {
    "WEB_PORT": "tcp://10.3.240.1:80",
    "WEB_HOST": "10.3.240.1",
    "ESHOP_SERVICE_HOST": "10.3.240.2",
    "ESHOP_PORT": "tcp://10.3.240.2:8000",
    "ESHOP_PORT_8000_TCP_ADDR": "10.3.240.2",
    "ESHOP_ORDERS_SERVICE_PORT_GRPC": "50051",
}
FAUST = {
    "PROCESSING_GUARANTEE": "exactly_once",
    "TOPIC_PARTITIONS": "3",
    "BROKER_URL": "kafka://127.0.0.1:9",
    "APP_DATADIR": "/nowhere",
    "NODE_CANONICAL_URL": NOBODY,
    "STREAM_BUFFER_MAXSIZE": "1",
    "CONSUMER_GROUP_INSTANCE_ID": "everybody",
    "F_DATADIR": "/nowhere",
    "FAUST_CONSOLE_PORT": "tcp://10.3.240.3:50101",
}
POSTGRES = {
    "PGSSLMODE": "require",
    "PGHOST": "10.3.240.4",
    "PGPORT": "9",
    "PGUSER": "nobody",
    "PGSERVICE": "nosuch",
    "PGOPTIONS": "-c no_such_setting=1",
    "PGPASSFILE": "/nowhere",
    "PGDATA": "/nowhere",
}
JAVA = {
    "JAVA_TOOL_OPTIONS": "-XX:NoSuchOption",
    "_JAVA_OPTIONS": "-Xmx1k",
    "JDK_JAVA_OPTIONS": "-XX:NoSuchOption",
    "KAFKA_OPTS": "-XX:NoSuchOption",
    "KAFKA_HEAP_OPTS": "-Xmx1k",
    "CLASSPATH": "/nowhere",
}
HOSTILE = {
    **dict.fromkeys(PROXIES + [name.upper() for name in PROXIES], NOBODY),
    **SERVICES,
    **FAUST,
    **POSTGRES,
    **JAVA,
    "PYTHONWARNINGS": "error",
    "PYTHONSTARTUP": "/nowhere",
    "LD_PRELOAD": "/nowhere/libnothing.so",
    "LANG": "C",
    "LC_ALL": "C",
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment, with a folder in Python's path that has another version of a library of the shop."""
    path = tmp_path_factory.mktemp("path")
    for library in ("faust", "aiohttp"):
        (path / f"{library}.py").write_text("raise ImportError('another library of this name')")
    return {**os.environ, **HOSTILE, "PYTHONPATH": str(path)}


@pytest.fixture(scope="module")
def strange_shop(hostile: dict[str, str]) -> Iterator[Shop]:
    """A shop with a data folder whose name is not ASCII, on that machine."""
    with running_shop(folder=FOLDER, environment=hostile) as running:
        yield running


@pytest.mark.timeout(300)
async def test_an_order_is_finished_whatever_the_environment_says(strange_shop: Shop) -> None:
    async with aiohttp.ClientSession() as session:
        shopper = Shopper(session, strange_shop.gateways()[0], f"user-{new_id()}")
        await shopper.open_account(1_000)
        order = await shopper.order(700, "a-key")
        assert (await shopper.until_final(order["order_id"]))["status"] == "FINISHED"


def test_nothing_is_written_beside_the_data_folder(strange_shop: Shop) -> None:
    assert [path.name for path in strange_shop.data.parent.iterdir() if path.is_dir()] == [FOLDER]
    assert (strange_shop.data / "kafka" / "logs" / "meta.properties").exists()
    assert (strange_shop.data / "services" / "projections" / "faust").is_dir()


def test_commands_work_there_too(strange_shop: Shop, hostile: dict[str, str]) -> None:
    def said(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "eshop.cli", *words, "--data", str(strange_shop.data)],
            env={**hostile, "COLUMNS": "4000"},
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert FOLDER in said("status")
    found = said("doctor")
    for name in (*HOSTILE, "PYTHONPATH"):
        assert name in found or name.startswith("ESHOP_") or name in ("LANG", "LC_ALL"), name


def test_audit_finds_nothing(strange_shop: Shop, hostile: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "eshop.cli", "audit", "--json", "--data", str(strange_shop.data)],
        env=hostile,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert Path(strange_shop.data).exists()
