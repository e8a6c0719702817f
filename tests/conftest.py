"""What all tests share: one cluster of real Kafka, Postgres and Valkey, started when the first test asks."""

import os
from collections.abc import AsyncIterator, Generator, Iterator

import pytest

from eshop.cluster.embedded import EmbeddedCluster
from eshop.store.unit_of_work import OrdersUnitOfWork, PaymentsUnitOfWork, Store
from tests.support.builders import migrated_store
from tests.support.shop_process import Shop, running_shop


@pytest.fixture(scope="session")
def cluster() -> Iterator[EmbeddedCluster]:
    """Kafka, Postgres and Valkey on free ports, in a temporary folder."""
    with EmbeddedCluster() as running:
        yield running


@pytest.fixture
async def orders(cluster: EmbeddedCluster) -> AsyncIterator[Store[OrdersUnitOfWork]]:
    """The orders service's store, on a database of the test's own."""
    async with migrated_store(cluster.postgres_admin_url, "orders", OrdersUnitOfWork) as store:
        yield store


@pytest.fixture
async def payments(cluster: EmbeddedCluster) -> AsyncIterator[Store[PaymentsUnitOfWork]]:
    """The payments service's store, on a database of the test's own."""
    async with migrated_store(cluster.postgres_admin_url, "payments", PaymentsUnitOfWork) as store:
        yield store


@pytest.fixture(scope="session")
def shop() -> Iterator[Shop]:
    """The whole shop, started as its user does, with two of everything but projections."""
    with running_shop("--scale", "orders=2,payments=2,gateway=2") as running:
        yield running


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let a skip fail where everything that tests need is said to be there."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("ESHOP_TESTS_FAIL_ON_SKIP"):
        report.outcome = "failed"
        report.longrepr = f"skipped, and nothing may be: {report.longrepr}"
    return report
