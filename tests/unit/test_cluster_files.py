"""What the launcher keeps on disk: the data folder and its lock, logs, and the pinned jars."""

import hashlib
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from eshop.cluster import jars, logs
from eshop.cluster.errors import ClusterError
from eshop.cluster.folder import DataFolder, ProcessRecord, RunRecord, temporary_folder
from eshop.cluster.java import find_java, parse_version
from eshop.cluster.os_user import remove_folder


def record(pid: int, created: float, *children: ProcessRecord) -> RunRecord:
    return RunRecord(pid=pid, created=created, ready=True, processes=children)


def test_second_launcher_is_told_who_runs_here(tmp_path: Path) -> None:
    first, second = DataFolder(tmp_path / "data"), DataFolder(tmp_path / "data")
    first.lock()
    first.write(record(os.getpid(), psutil.Process().create_time()))
    with pytest.raises(ClusterError, match=f"already runs in .*process {os.getpid()}"):
        second.lock()
    assert second.is_locked()
    first.unlock()
    second.lock()
    second.unlock()
    assert not first.is_locked()


def test_new_launcher_waits_for_the_guardian_of_a_dead_one(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    folder.lock()
    folder.write(record(os.getpid(), created=1.0))  # another process had this id
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        pass_fds=(folder.lock_descriptor,),
    ) as guardian:
        folder.unlock()
        assert folder.is_locked()
        guardian.terminate()
        DataFolder(tmp_path / "data").lock()


def test_children_that_outlived_launcher_and_guardian_are_ended(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    folder.lock()
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as child:
        left = ProcessRecord("orders", "orders", child.pid, "ready", {}, time.time(), 0)
        another = ProcessRecord("payments", "payments", os.getpid(), "ready", {}, 1.0, 0)
        folder.write(record(2**22 + 1, 1.0, left, another))
        folder.unlock()
        folder.lock()
        child.wait(10)
    assert folder.record() is None
    folder.unlock()


def test_record_survives_writing_and_half_a_record_is_none(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    child = ProcessRecord("orders", "orders", 7, "ready", {"http": 6066}, 12.5, 2)
    folder.write(record(1, 2.0, child))
    assert folder.record() == record(1, 2.0, child)
    (tmp_path / "run.json").write_text('{"pid": 1, "crea')
    assert folder.record() is None


def test_only_a_folder_of_ours_may_be_removed(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    assert not DataFolder(tmp_path).may_be_removed()
    assert not DataFolder(tmp_path).is_data_folder()
    made = temporary_folder()
    made.lock()
    assert made.may_be_removed()
    assert made.is_data_folder()
    made.unlock()
    remove_folder(made.path)
    assert not made.path.exists()


def test_linked_folder_is_removed_with_what_it_links_to(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").touch()
    (tmp_path / "postgres").symlink_to(tmp_path / "elsewhere")
    remove_folder(tmp_path / "postgres")
    assert list(tmp_path.iterdir()) == []


def test_tail_shows_whole_lines_and_begins_anew_after_a_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    tail = logs.Tail(path)
    assert tail.new_lines() == []
    path.write_text("one\ntw")
    assert tail.new_lines() == ["one"]
    with path.open("a") as file:
        file.write("o\n")
    assert tail.new_lines() == ["two"]
    path.write_text("new\n")
    assert tail.new_lines() == ["new"]


def test_tail_of_a_flood_says_what_it_leaves_out(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    tail = logs.Tail(path)
    path.write_text("x" * 99 + "\n" + ("y" * 99 + "\n") * 2000)
    first, *rest = tail.new_lines()
    assert re.match(r"… \d+ bytes not shown, see a.log", first)
    assert len(rest) < 1000
    assert tail.new_lines() == []


@pytest.mark.parametrize("count", [0, 1, 3, 500, 5000])
def test_last_lines_are_the_last(tmp_path: Path, count: int) -> None:
    path = tmp_path / "a.log"
    lines = [f"line {number} " + "z" * (number % 300) for number in range(1000)]
    path.write_text("\n".join(lines) + "\n")
    assert list(logs.last_lines(path, count)) == (lines[-count:] if count else [])


def test_log_past_its_bound_moves_aside_while_the_child_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LOG_BYTES_MAX", 100)
    path = tmp_path / "a.log"
    with path.open("ab", buffering=0) as child:
        child.write(b"x" * 101)
        logs.bound_log(path)
        child.write(b"more\n")
        logs.bound_log(path)
    assert path.read_bytes() == b"more\n"
    assert (tmp_path / "a.log.1").read_bytes() == b"x" * 101


def test_jars_are_pinned_without_naming_a_host() -> None:
    locked = jars.locked_jars()
    names = {jar.file_name for jar in locked}
    assert len(names) == len(locked) == 46
    assert {f"kafka_2.13-{jars.KAFKA_VERSION}.jar", f"kafka-clients-{jars.KAFKA_VERSION}.jar"} <= names
    assert any(name.startswith("log4j-slf4j-impl") for name in names), "without it the broker is silent"
    assert all(re.fullmatch(r"[0-9a-f]{64}", jar.sha256) and jar.size_bytes > 0 for jar in locked)
    assert "://" not in jars.LOCK.read_text()


def jar_of(content: bytes) -> jars.Jar:
    return jars.Jar("org.example", "thing", "1.0", hashlib.sha256(content).hexdigest(), len(content))


@dataclass
class Network:
    """What the network would give, how often it was asked, and how often it fails first."""

    content: bytes = b""
    asked: int = 0
    failures: int = 0


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    served = Network()

    def download(room: Path, jar: jars.Jar, progress: jars.Progress) -> Path:
        served.asked += 1
        if served.failures >= served.asked:
            raise OSError("the network is unreachable")
        room.mkdir(parents=True)
        (room / jar.file_name).write_bytes(served.content)
        progress(len(served.content))
        return room / jar.file_name

    monkeypatch.setattr(jars, "_download", download)
    monkeypatch.setattr(jars, "RETRY_SECONDS", 0)
    return served


def test_fetched_jar_is_whole_and_not_fetched_again(tmp_path: Path, network: Network) -> None:
    jar = jar_of(b"good")
    arrived: list[int] = []
    network.content = b"good"
    assert jars.missing_jars(tmp_path, (jar,)) == (jar,)
    jars.fetch_jars(tmp_path, (jar,), arrived.append)
    assert jars.missing_jars(tmp_path, (jar,)) == ()
    assert [path.name for path in tmp_path.iterdir()] == [jar.file_name], "nothing half is left"
    assert arrived == [4]


def test_jar_with_another_checksum_is_refused_and_not_kept(tmp_path: Path, network: Network) -> None:
    network.content = b"evil"
    with pytest.raises(ClusterError, match="the lock says"):
        jars.fetch_jars(tmp_path, (jar_of(b"good"),), lambda _bytes: None)
    assert list(tmp_path.iterdir()) == []


def test_jar_damaged_in_the_cache_is_fetched_again(tmp_path: Path) -> None:
    jar = jar_of(b"good")
    (tmp_path / jar.file_name).write_bytes(b"gooe")
    assert jars.missing_jars(tmp_path, (jar,)) == (jar,)


@pytest.mark.parametrize(("failures", "fetched"), [(2, True), (3, False)])
def test_download_is_tried_three_times(
    tmp_path: Path, network: Network, failures: int, fetched: bool
) -> None:
    network.content, network.failures = b"good", failures
    jar = jar_of(b"good")
    if fetched:
        jars.fetch_jars(tmp_path, (jar,), lambda _bytes: None)
    else:
        with pytest.raises(ClusterError, match=r"cannot download thing 1.0: the network is unreachable"):
            jars.fetch_jars(tmp_path, (jar,), lambda _bytes: None)
    assert (tmp_path / jar.file_name).exists() is fetched


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('openjdk version "25" 2025-09-16', 25),
        ('java version "1.8.0_401"', 8),
        ("no java here", 0),
    ],
)
def test_java_version_is_read(text: str, version: int) -> None:
    assert parse_version(text) == version


def test_java_that_is_not_there_is_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="ESHOP_JAVA=wheel"):
        find_java(str(tmp_path / "java"))


def test_java_of_the_wheel_runs() -> None:
    assert find_java("wheel").source == "wheel"


STOP_NOISE = [f"2026-11-25 04:43:21,9{n} INFO faust.worker [^Worker]: Stopping..." for n in range(20, 40)]
FAUST_ERROR = "2026-11-25 04:43:21,927 ERROR faust.worker [^Worker]: Error: TopicMismatch('1 copies')"
FRAMES = [logs.TRACEBACK, '  File "app.py", line 116, in start', "    await hook()"]


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        (
            [FAUST_ERROR, *FRAMES, "eshop.kafka.topics.TopicMismatch: 1 copies", *STOP_NOISE],
            [FAUST_ERROR, "eshop.kafka.topics.TopicMismatch: 1 copies"],
        ),
        (
            [
                *FRAMES,
                "ValidationError: 1 validation error for Settings",
                "service_token",
                "  Value error, no token",
            ],
            ["ValidationError: 1 validation error for Settings", "service_token", "  Value error, no token"],
        ),
        (
            [
                *FRAMES,
                "KeyError: 1",
                "",
                "The above exception was the direct cause:",
                "",
                *FRAMES,
                "OSError: 2",
            ],
            ["OSError: 2"],
        ),
        (
            [
                "04:43:21.927 INFO  Server: starting",
                "04:43:21.927 FATAL Server: no disk",
                "04:43:22.000 INFO  bye",
            ],
            ["04:43:21.927 FATAL Server: no disk"],
        ),
        (
            [
                "2026-11-25 04:43:21.927 UTC [7] FATAL:  could not map memory",
                "2026-11-25 04:43:21.927 UTC [7] LOG:  shut down",
            ],
            ["2026-11-25 04:43:21.927 UTC [7] FATAL:  could not map memory"],
        ),
        (STOP_NOISE, []),
        ([logs.TRACEBACK], []),
    ],
)
def test_the_cause_is_found_above_the_noise_of_stopping(lines: list[str], cause: list[str]) -> None:
    assert logs.cause_of_end(lines) == cause


def test_logs_of_a_folder_that_goes_are_kept(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    folder.lock()
    folder.log("orders").write_text("why")
    kept = folder.keep_logs()
    folder.unlock()
    remove_folder(folder.path)
    assert (kept / "orders.log").read_text() == "why"
    remove_folder(kept.parent)


@pytest.mark.parametrize(
    ("words", "variables", "setting"),
    [
        (["up"], {"ESHOP_DATA": "{file}/data"}, "ESHOP_DATA"),
        (["up", "--detach"], {"ESHOP_DATA": "{file}/data"}, "--data"),
        (["up", "--ephemeral"], {"ESHOP_CACHE": "{file}"}, "ESHOP_CACHE"),
        (["up", "--ephemeral"], {"HOME": "{file}", "XDG_CACHE_HOME": ""}, "ESHOP_CACHE"),
        (["up", "--ephemeral"], {"ESHOP_JAVA": "{file}"}, "ESHOP_JAVA"),
        (["up"], {"ESHOP_LOG_LEVLE": "debug"}, "did you mean ESHOP_LOG_LEVEL?"),
        (["status"], {"ESHOP_ORDERS_GRPC": "orders"}, "ESHOP_ORDERS_GRPC"),
    ],
)
def test_a_place_that_cannot_be_written_is_one_line_that_names_the_setting(
    words: list[str], variables: dict[str, str], setting: str, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    env = {name: value.format(file=file) for name, value in variables.items()}
    done = subprocess.run(
        [sys.executable, "-m", "eshop.cli", *words],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert setting in done.stderr


def test_a_start_in_the_background_fails_with_the_same_words(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "eshop.cli", "up", "--ephemeral", "--detach"],
        env={**os.environ, "ESHOP_JAVA": str(tmp_path / "nosuch"), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "the cluster did not start:" in done.stderr
    assert "no Java 17 or newer with ESHOP_JAVA=" in done.stderr
    assert not list(tmp_path.iterdir())
