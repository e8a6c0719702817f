"""Processes that listen on IPv6 are found there."""

from pathlib import Path

import pytest

from eshop.cluster.embedded import EmbeddedCluster
from tests.support.worker_process import World, fill_wallets

HEALTH = {"payments": "/health/ready", "gateway": "/health/live"}


@pytest.mark.parametrize("kind", HEALTH)
async def test_a_process_listens_on_ipv6(kind: str, cluster: EmbeddedCluster, tmp_path: Path) -> None:
    process = World(cluster, tmp_path).process("payments", kind, host="[::1]")
    await process.start(ESHOP_REDIS_URL=cluster.redis_url)
    try:
        await process.until_ready(HEALTH[kind])
        if kind == "payments":
            await fill_wallets(process.grpc_address, ["ann"], 1_000)
    finally:
        await process.leave()
