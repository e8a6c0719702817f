"""Children are kept running, and none outlives the launcher; with small stand-ins for the real programs."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from eshop.cluster import supervisor
from eshop.cluster.errors import ClusterError
from eshop.cluster.guardian import wait_until
from eshop.cluster.process import Guardian, Process, Program
from eshop.cluster.supervisor import State, Supervised, describe_exit

SECONDS_MAX = 15.0
SLEEPER = "import time; print('here', flush=True); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPER}"


@pytest.fixture
def guardian() -> Iterator[Guardian]:
    started = Guardian()
    yield started
    started.close()


def program(folder: Path, code: str, **others: Any) -> Program:
    log = folder / "child.log"
    ready = others.pop("is_ready", lambda: log.exists() and b"here" in log.read_bytes())
    return Program("child", (sys.executable, "-c", code), folder, ready, **others)


def process(folder: Path, guardian: Guardian, code: str = SLEEPER, **others: Any) -> Process:
    return Process(program(folder, code, **others), folder / "child.log", guardian)


def supervised(folder: Path, guardian: Guardian, news: list[str], code: str = SLEEPER) -> Supervised:
    return Supervised(process(folder, guardian, code), "orders", {}, lambda _name, text: news.append(text))


def test_exit_is_said_in_words() -> None:
    assert describe_exit(3) == "ended with code 3"
    assert describe_exit(-9) == "was killed by signal 9"


def test_killed_child_is_started_again_and_said_so(tmp_path: Path, guardian: Guardian) -> None:
    news: list[str] = []
    child = supervised(tmp_path, guardian, news)
    child.start()
    assert wait_until(lambda: child.state is State.READY, SECONDS_MAX)
    first = child.process.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert wait_until(lambda: child.restarts == 1 and child.state is State.READY, SECONDS_MAX)
    assert child.process.pid != first
    assert "was killed by signal 9; starts again in 0.5 s" in news
    child.stop()
    assert child.process.pid is None
    assert child.state is State.STOPPED


def test_child_that_always_ends_waits_longer_each_time(
    tmp_path: Path, guardian: Guardian, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "BACKOFF_SECONDS_FIRST", 0.01)
    news: list[str] = []
    child = supervised(tmp_path, guardian, news, "raise SystemExit(3)")
    child.start()
    assert wait_until(lambda: child.restarts >= 4, SECONDS_MAX)
    child.stop()
    assert news[:3] == [f"ended with code 3; starts again in {delay:.1f} s" for delay in (0.01, 0.02, 0.04)]


def test_stop_while_waiting_to_start_again_starts_nothing(tmp_path: Path, guardian: Guardian) -> None:
    child = supervised(tmp_path, guardian, [], "raise SystemExit(3)")
    child.start()
    assert wait_until(lambda: child.state is State.WAITING, SECONDS_MAX)
    child.stop()
    assert child.process.pid is None


def test_deaf_child_is_killed_after_its_time(tmp_path: Path, guardian: Guardian) -> None:
    child = process(tmp_path, guardian, STUBBORN, stop_seconds_max=0.3).start()
    child.wait_ready(SECONDS_MAX)
    child.stop()
    assert child.pid is None


def test_child_that_ends_before_it_is_ready_is_reported_with_its_last_words(
    tmp_path: Path, guardian: Guardian
) -> None:
    child = process(tmp_path, guardian, "print('no such table'); raise SystemExit(4)", is_ready=lambda: False)
    with pytest.raises(ClusterError, match=r"(?s)ended with 4 before it was ready:.*no such table"):
        child.start().wait_ready(SECONDS_MAX)


CHILD = """
import signal, subprocess, sys, time
from pathlib import Path
if sys.argv[1:] == ["deaf"]:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Path(sys.argv[0]).with_name("is-deaf").touch()
else:
    subprocess.Popen([sys.executable, sys.argv[0], "deaf"])
time.sleep(600)
"""
LAUNCHER = """
import sys, time
from pathlib import Path
from eshop.cluster.process import Guardian, Process, Program
folder = Path(sys.argv[1])
program = Program("child", (sys.executable, str(folder / "child.py")), folder, lambda: True)
child = Process(program, folder / "child.log", Guardian()).start()
print(child.pid, flush=True)
time.sleep(600)
"""


def test_killed_launcher_leaves_no_child_and_no_grandchild(tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(CHILD)
    argv = [sys.executable, "-c", LAUNCHER, str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as launcher:
        try:
            assert launcher.stdout is not None
            child = psutil.Process(int(launcher.stdout.readline()))
            assert wait_until((tmp_path / "is-deaf").exists, SECONDS_MAX)
            family = [child, *child.children(), *psutil.Process(launcher.pid).children()]
        finally:
            launcher.kill()
    assert wait_until(lambda: not any(alive(member) for member in family), SECONDS_MAX)


def alive(found: psutil.Process) -> bool:
    try:
        return found.is_running() and found.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_why_a_child_ended_is_said_and_no_earlier_end_is_taken_for_it(
    tmp_path: Path, guardian: Guardian
) -> None:
    (tmp_path / "child.log").write_text("2026-01-01 00:00:00,000 ERROR another run's\n")
    news: list[str] = []
    child = supervised(tmp_path, guardian, news, "raise LookupError('no lamp')")
    child.start()
    assert wait_until(lambda: child.restarts >= 1, SECONDS_MAX)
    child.stop()
    assert news[0] == "ended with code 1 (LookupError: no lamp); starts again in 0.5 s"
    quiet = process(tmp_path, guardian, "raise SystemExit(3)").start()
    quiet.wait(SECONDS_MAX)
    assert quiet.cause_of_end() is None
