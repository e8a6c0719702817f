"""What all tests share: one cluster of real Kafka, Postgres and Valkey, started when the first test asks."""

from collections.abc import Iterator

import pytest

from eshop.cluster.embedded import EmbeddedCluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[EmbeddedCluster]:
    """Kafka, Postgres and Valkey on free ports, in a temporary folder."""
    with EmbeddedCluster() as running:
        yield running
