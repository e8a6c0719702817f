"""The part of the fault suite that every test run has: `python -m tests.faults --short`, on a fixed seed."""

import os

import pytest

from tests.faults.harness.report import headline
from tests.faults.harness.run import run
from tests.faults.plan import short

#: Another one by FAULTS_SEED: what a seed has shown, it shows again.
SEED = int(os.environ.get("FAULTS_SEED", "20"))


@pytest.mark.timeout(1200)
async def test_nothing_is_lost_or_doubled_whatever_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        report = await run(short(SEED))
        print(f"\n{headline(report)}")  # noqa: T201
    assert report.failures == []
