"""The outages that every test run has: `python -m tests.faults outages --short`, on a fixed seed."""

import os

import pytest

from tests.faults.harness.report import headline
from tests.faults.harness.run import run
from tests.faults.plan import short_outages

#: Another one by FAULTS_SEED: what a seed has shown, it shows again.
SEED = int(os.environ.get("FAULTS_SEED", "20"))


@pytest.mark.timeout(900)
async def test_everything_drains_when_the_broker_is_back(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        report = await run(short_outages(SEED))
        print(f"\n{headline(report)}")  # noqa: T201
    assert report.failures == []
