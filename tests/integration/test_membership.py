"""A worker that can't be a member of its group says so and ends, and is not ready meanwhile."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from eshop.cluster.embedded import EmbeddedCluster
from eshop.cluster.ports import free_port
from eshop.process.exit import EXIT_CODE
from tests.support.worker_process import World, until_ready

END_SECONDS_MAX = 40


@asynccontextmanager
async def twin(
    world: World, host: str, port: int, advertised: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, Path]]:
    """Run a payments worker under the name that all of them have, on a host of its own."""
    env = world.environment("payments", free_port(world.taken), port) | {
        "ESHOP_WEB_LISTEN": f"{host}:{port}",
        "ESHOP_WEB_ADVERTISED": f"{advertised}:{port}",
        "ESHOP_INSTANCE": "the-one",
    }
    log = world.folder / f"{host}.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "faust", "-A", "eshop.payments", "worker", "-l", "info"),
            env=env,
            stdout=output,
            stderr=output,
        )
    try:
        yield process, log
    finally:
        if process.returncode is None:
            process.terminate()
            await asyncio.wait_for(process.wait(), END_SECONDS_MAX)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("advertised", ["127.0.0.2", "127.0.0.1"], ids=["elsewhere", "at the same address"])
async def test_a_worker_whose_name_another_one_has_taken_ends_and_says_so(
    cluster: EmbeddedCluster, tmp_path: Path, advertised: str
) -> None:
    world = World(cluster, tmp_path)
    port = free_port(world.taken)
    async with twin(world, "127.0.0.1", port, "127.0.0.1") as (first, first_log):
        await until_ready(first, port, first_log)
        async with twin(world, "127.0.0.2", port, advertised) as (second, second_log):
            ends = {asyncio.create_task(one.wait()) for one in (first, second)}
            done, _ = await asyncio.wait(ends, timeout=END_SECONDS_MAX, return_when=asyncio.FIRST_COMPLETED)
            assert {task.result() for task in done} == {EXIT_CODE}
            ended = first_log if first.returncode is not None else second_log
            assert (
                "another process may be a member under the same name: see ESHOP_INSTANCE" in ended.read_text()
            )
            if second.returncode == EXIT_CODE and first.returncode is None:
                await until_ready(first, port, first_log)  # it has its place back
