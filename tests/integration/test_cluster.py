"""The cluster without Docker: real Kafka, Postgres and Valkey, and the whole shop by its command."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest
import redis
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from eshop.cluster.embedded import EmbeddedCluster, PartName
from eshop.cluster.folder import RunRecord, temporary_folder
from eshop.cluster.guardian import wait_until
from eshop.cluster.os_user import remove_folder
from eshop.cluster.ports import free_port
from eshop.cluster.services import BASE_PORTS
from eshop.contracts.services import TOPICS
from eshop.kafka.topics import Copies, TopicMismatch, ensure_topics
from eshop.settings import DEFAULT_PORTS

UP_SECONDS_MAX = 110
GONE_SECONDS_MAX = 30
KINDS = list(DEFAULT_PORTS)
PARTS = ["kafka", "valkey", "postgres"]


def query(url: str, statement: str) -> list[tuple[Any, ...]]:
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="module")
def parts() -> Iterator[EmbeddedCluster]:
    """A cluster of this file's own: its parts are killed."""
    with EmbeddedCluster() as running:
        yield running


def test_parts_are_what_the_design_names(parts: EmbeddedCluster) -> None:
    rows = query(
        parts.postgres_admin_url,
        "SELECT name, setting FROM pg_settings WHERE name IN ('server_version_num', 'max_connections', "
        "'data_checksums', 'password_encryption', 'listen_addresses', 'unix_socket_directories', 'fsync')",
    )
    settings = dict(rows)
    assert settings.pop("server_version_num").startswith("18")
    assert settings == {
        "max_connections": "200",
        "data_checksums": "on",
        "password_encryption": "scram-sha-256",
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "fsync": "off",  # a temporary cluster's: tests/unit/test_cluster_plan.py has the other
    }
    with closing(redis.Redis.from_url(parts.redis_url)) as client:
        assert client.ping()


def test_postgres_wants_the_password(parts: EmbeddedCluster) -> None:
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(parts.postgres_admin_url.replace("postgres:postgres@", "postgres:wrong@"))


@pytest.mark.parametrize("name", ["kafka", "postgres", "valkey"])
def test_killed_part_starts_again_on_its_data(parts: EmbeddedCluster, name: PartName) -> None:
    query(parts.postgres_admin_url, f"CREATE TABLE kept_{name} (id int)")
    asyncio.run(ensure_topics(parts.kafka, f"{name}."))
    parts.kill_part(name)
    assert parts.pid(name) is None
    parts.start_part(name)
    assert query(parts.postgres_admin_url, f"SELECT count(*) FROM kept_{name}") == [(0,)]
    asyncio.run(ensure_topics(parts.kafka, f"{name}."))


def test_topics_have_the_catalogues_partitions_and_settings(parts: EmbeddedCluster) -> None:
    async def check() -> None:
        await asyncio.gather(*(ensure_topics(parts.kafka, "many.") for _ in range(3)))
        admin = AIOKafkaAdminClient(bootstrap_servers=parts.kafka)
        await admin.start()
        try:
            described = await admin.describe_topics(["many." + topic.name for topic in TOPICS])
        finally:
            await admin.close()
        assert {topic["topic"]: len(topic["partitions"]) for topic in described} == {
            "many." + topic.name: topic.partitions for topic in TOPICS
        }

    asyncio.run(check())


def test_topics_with_fewer_copies_than_asked_for_are_refused(parts: EmbeddedCluster) -> None:
    async def check() -> None:
        await ensure_topics(parts.kafka, "single.")
        with pytest.raises(TopicMismatch, match="has 1 copies, ESHOP_TOPIC_REPLICATION says 3"):
            await ensure_topics(parts.kafka, "single.", Copies(replication=3, min_in_sync=2))

    asyncio.run(check())


def test_topics_are_not_made_by_writing_to_them(parts: EmbeddedCluster) -> None:
    async def check() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=parts.kafka, request_timeout_ms=500)
        await producer.start()
        try:
            with pytest.raises(Exception, match=r"Unknown|Timeout|timed out|update metadata"):
                await producer.send_and_wait("no-such-topic", b"x")
        finally:
            await producer.stop()

    asyncio.run(check())


class Shop:
    """The whole shop, run by `eshop up` in the background on free ports."""

    def __init__(self) -> None:
        self.folder = temporary_folder()
        avoid: set[int] = set()
        self.ports = [word for name in BASE_PORTS for word in (f"--{name}-port", str(free_port(avoid)))]

    def run(self, *words: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "eshop.cli", *words, "--data", str(self.folder.path)],
            capture_output=True,
            text=True,
            timeout=UP_SECONDS_MAX,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def up(self) -> str:
        return self.run("up", "--detach", *self.ports)

    def record(self) -> RunRecord:
        found = self.folder.record()
        assert found is not None
        return found

    def pid(self, name: str) -> int:
        found = next(child.pid for child in self.record().processes if child.name == name)
        assert found is not None
        return found

    def family(self) -> list[psutil.Process]:
        """Everything that a start brought into being: guardian, children, and theirs."""
        return psutil.Process(self.record().pid).children(recursive=True)

    def status(self) -> dict[str, dict[str, Any]]:
        done = json.loads(self.run("status", "--json"))
        return {process["name"]: process for process in done["processes"]}

    def is_ready(self) -> bool:
        words = ["status", "--json", "--data", str(self.folder.path)]
        done = subprocess.run([sys.executable, "-m", "eshop.cli", *words], capture_output=True, check=False)
        return done.returncode == 0

    def ready_again(self, name: str) -> bool:
        child = next(child for child in self.record().processes if child.name == name)
        return child.restarts > 0 and child.state == "ready"


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    running = Shop()
    running.up()
    yield running
    running.run("down")
    remove_folder(running.folder.path / "postgres")
    remove_folder(running.folder.path)


@pytest.mark.timeout(240)
def test_status_shows_every_process_ready(shop: Shop) -> None:
    status = shop.status()
    assert sorted(status) == sorted([*KINDS, *PARTS])
    for process in status.values():
        assert process["ready"] is True
        assert psutil.pid_exists(process["pid"])
        assert process["restarts"] == 0
    assert "gateway" in shop.run("status")


def test_second_launcher_and_reset_are_refused_while_it_runs(shop: Shop) -> None:
    assert f"already runs in {shop.folder.path}" in shop.run("up", code=1)
    assert "end it first with `eshop down`" in shop.run("reset", "--yes", code=1)


def test_taken_port_is_explained(shop: Shop) -> None:
    port = shop.status()["gateway"]["ports"]["http"]
    other = temporary_folder()
    done = subprocess.run(
        [sys.executable, "-m", "eshop.cli", "up", "--data", str(other.path), "--gateway-port", str(port)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    remove_folder(other.path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert re.search(
        r"port \d+ \(\w+\) is taken by .*choose another port with --[a-z-]+-port PORT", done.stderr
    )


@pytest.mark.parametrize("name", ["payments", "gateway", "valkey", "postgres"])
def test_killed_process_is_started_again_and_said_so(shop: Shop, name: str) -> None:
    os.kill(shop.pid(name), signal.SIGKILL)
    assert wait_until(lambda: shop.ready_again(name) and shop.is_ready(), 60)
    assert f"{name} was killed by signal 9; starts again in" in shop.run("logs", "launcher", "-n", "1000")


@pytest.mark.timeout(240)
def test_killed_launcher_leaves_no_orphan_and_the_next_start_has_the_data(shop: Shop) -> None:
    ports = {name: process["ports"] for name, process in shop.status().items()}
    url = f"postgresql://postgres:postgres@127.0.0.1:{ports['postgres']['postgres']}/postgres"
    query(url, "CREATE TABLE kept (id int)")
    family = shop.family()
    assert len(family) > len(KINDS) + len(PARTS)
    postgres = shop.pid("postgres")
    psutil.Process(shop.record().pid).kill()
    os.kill(postgres, signal.SIGKILL)
    assert wait_until(lambda: not any(is_alive(member) for member in family), GONE_SECONDS_MAX)

    assert "nothing runs in" in shop.run("status", code=1)
    pid_file = shop.folder.path / "postgres" / "data" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]))  # its id belongs to another by now
    shop.up()
    assert query(url, "SELECT count(*) FROM kept") == [(0,)]
    assert {name: process["ports"] for name, process in shop.status().items()} == ports


def is_alive(found: psutil.Process) -> bool:
    try:
        return found.is_running() and found.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.timeout(240)
def test_down_stops_everything_in_order(shop: Shop) -> None:
    family = shop.family()
    shop.run("down")
    assert not any(is_alive(member) for member in family)
    said = shop.run("logs", "launcher", "-n", str(len(KINDS) + len(PARTS))).splitlines()
    stopped = [line.split()[2] for line in said if line.endswith(" stopped")]
    assert stopped[0] == "gateway"
    assert sorted(["gateway", *stopped[1 : len(KINDS)]]) == sorted(KINDS)
    assert stopped[len(KINDS) :] == PARTS


@pytest.mark.parametrize(
    "words", [[], ["up"], ["down"], ["status"], ["logs"], ["reset"], ["topics"], ["migrate"], ["doctor"]]
)
def test_help_has_an_example(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "eshop.cli", *words, "--help"], capture_output=True, text=True, check=True
    )
    assert "Example" in done.stdout


def test_bad_settings_end_with_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "eshop.cli", "doctor", "--data", str(tmp_path)],
        env=os.environ | {"ESHOP_CURRENCY": "dollars", "ESHOP_LOG_LEVEL": "loud"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "ESHOP_CURRENCY" in done.stderr
    assert "ESHOP_LOG_LEVEL" in done.stderr
