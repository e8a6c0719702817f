"""A run that has not proven what it is for says so."""

import random
from collections.abc import Callable

import pytest

from tests.faults.harness.report import Happened, Report, markdown, share
from tests.faults.plan import everything, outages, short, soak, volley

CLEAN = {"ok": True, "exit_code": 0, "invariants": []}
BROKEN = {"id": "5", "name": "one order per key", "broken": 1, "warning": False}


def a_run() -> Report:
    """Return a run that is as it should be."""
    killed = Happened("SIGKILL of orders", 0, kills=2, recovery_seconds=9.0, dropped_by_inbox=3)
    facts = {"messages published twice": 1}
    return Report(7, minutes=1.0, orders=100, happened=[killed], facts=facts, audit=dict(CLEAN))


def judged(report: Report) -> list[str]:
    report.judge(100, 2, (15.0, 30.0))
    report.judge_repetitions()
    return report.failures


def test_good_run_passes() -> None:
    assert judged(a_run()) == []


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda run: setattr(run, "orders", 99), "99 orders"),
        (lambda run: setattr(run.happened[0], "kills", 1), "1 kills"),
        (lambda run: setattr(run.happened[0], "dropped_by_inbox", 0), "ever delivered again"),
        (lambda run: run.facts.clear(), "ever published a message twice"),
        (lambda run: setattr(run.happened[0], "recovery_seconds", 15.1), "15.1 s"),
        (lambda run: setattr(run.happened[0], "failure", "it was not hit"), "not hit"),
        (lambda run: run.audit.update(ok=False, exit_code=1, invariants=[BROKEN]), "5 (1)"),
        (lambda run: run.audit.update(exit_code=2), "not clean"),
    ],
)
def test_run_that_shows_less_than_it_should_fails(spoil: Callable[[Report], None], why: str) -> None:
    run = a_run()
    spoil(run)
    assert [failure for failure in judged(run) if why in failure]


def test_rare_slow_recovery_is_allowed_and_no_very_slow_one() -> None:
    run = a_run()
    run.happened += [Happened("SIGKILL of kafka", 0, recovery_seconds=5.0) for _ in range(40)]
    run.happened.append(Happened("SIGKILL of kafka", 0, recovery_seconds=29.0))
    assert judged(run) == []
    run.happened.append(Happened("SIGKILL of kafka", 0, recovery_seconds=31.0))
    assert "31.0 s" in judged(run)[0]


def test_share_is_a_value_that_was_seen() -> None:
    assert [share([1.0, 2.0, 3.0, 4.0], part) for part in (0.5, 0.95, 1.0)] == [2.0, 4.0, 4.0]


def test_table_names_every_fault_once() -> None:
    run = a_run()
    run.happened.append(Happened("SIGKILL of orders", 0, kills=1, recovery_seconds=11.0))
    rows = [line for line in markdown(run).splitlines() if line.startswith("| SIGKILL")]
    assert rows == ["| SIGKILL of orders | 2 | 0 | 3 |  | 9.0 | 11.0 | 11.0 |"]


def test_seed_decides_what_happens() -> None:
    one, same, other = ([fault.name for fault in soak(seed, 1, 1, 1).faults] for seed in (1, 1, 2))
    assert one == same != other
    assert sorted(one) == sorted(other) == sorted(fault.name for fault in everything())
    assert len(set(one)) == len(one)


def test_short_plan_has_every_crash_point() -> None:
    names = {fault.name for fault in short(1).faults}
    assert {fault.name for fault in everything() if fault.name.startswith("crash point")} <= names


def test_outages_have_every_length_in_every_way_and_the_repetitions_evenly() -> None:
    names = [fault.name for fault in outages(1, 21, (60.0, 600.0)).faults]
    assert len(names) == 21 + 6
    for way in ("port closed", "silent", "resets"):
        assert names.count(f"broker away for 5 to 20 s, {way}") == 7
        assert len(outages(1, 21, (60.0,), [f"60 s, {way}"]).faults) == 1
        assert (
            names.count(f"broker away for 60 s, {way}") == names.count(f"broker away for 600 s, {way}") == 1
        )


def test_volley_kills_no_process_twice() -> None:
    rng = random.Random(3)
    for _ in range(200):
        kinds = volley(rng, 3).kinds
        assert all(kinds.count(kind) == 1 for kind in kinds if kind in ("kafka", "postgres", "valkey"))
