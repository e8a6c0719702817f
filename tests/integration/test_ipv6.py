"""Processes that listen on IPv6 are found there."""

import asyncio
import os
import sys
from pathlib import Path

import aiohttp
import pytest

from eshop.cluster.embedded import EmbeddedCluster
from eshop.cluster.ports import free_port
from tests.support.worker_process import READY_SECONDS_MAX, World, end_of, fill_wallets

HEALTH = {"eshop.payments": "/health/ready", "gateway": "/health/live"}


@pytest.mark.parametrize("module", HEALTH)
async def test_a_process_listens_on_ipv6(module: str, cluster: EmbeddedCluster, tmp_path: Path) -> None:
    world = World(cluster, tmp_path)
    web, grpc = free_port(world.taken), free_port(world.taken)
    env = world.environment("payments", grpc, web) | {
        "ESHOP_WEB_LISTEN": f"[::1]:{web}",
        "ESHOP_GRPC_LISTEN": f"[::1]:{grpc}",
        "ESHOP_REDIS_URL": cluster.redis_url,
    }
    words = ("gateway",) if module == "gateway" else ("faust", "-A", module, "worker", "-l", "info")
    log = tmp_path / "process.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *words), env={**os.environ, **env}, stdout=output, stderr=output
        )
    try:
        await until_well(process, f"http://[::1]:{web}{HEALTH[module]}", log)
        if module != "gateway":
            await fill_wallets(f"[::1]:{grpc}", ["ann"], 1_000)
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 30)


async def until_well(process: asyncio.subprocess.Process, url: str, log: Path) -> None:
    """Wait until the process answers 200."""
    async with asyncio.timeout(READY_SECONDS_MAX), aiohttp.ClientSession() as http:
        while True:
            assert process.returncode is None, end_of(log)
            try:
                async with http.get(url) as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
