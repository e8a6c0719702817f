"""A worker that can't be a member of its group says so and ends, and is not ready meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from eshop.cluster.embedded import EmbeddedCluster
from eshop.cluster.ports import free_port
from eshop.process.exit import EXIT_CODE
from tests.support.worker_process import WorkerProcess, World

END_SECONDS_MAX = 40


@asynccontextmanager
async def twin(world: World, host: str, port: int, advertised: str) -> AsyncIterator[WorkerProcess]:
    """Run a payments worker under the name that all of them have, on a host of its own."""
    worker = world.process("payments", host=host, web_port=port)
    await worker.start(ESHOP_WEB_ADVERTISED=f"{advertised}:{port}", ESHOP_INSTANCE="the-one")
    try:
        yield worker
    finally:
        await worker.leave()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("advertised", ["127.0.0.2", "127.0.0.1"], ids=["elsewhere", "at the same address"])
async def test_a_worker_whose_name_another_one_has_taken_ends_and_says_so(
    cluster: EmbeddedCluster, tmp_path: Path, advertised: str
) -> None:
    world = World(cluster, tmp_path)
    port = free_port(world.taken)
    async with twin(world, "127.0.0.1", port, "127.0.0.1") as first:
        await first.until_ready()
        async with twin(world, "127.0.0.2", port, advertised) as second:
            ends = {asyncio.create_task(one.ends()) for one in (first, second)}
            done, _ = await asyncio.wait(ends, timeout=END_SECONDS_MAX, return_when=asyncio.FIRST_COMPLETED)
            assert {task.result() for task in done} == {EXIT_CODE}
            ended = second if first.is_running else first
            assert "another process may be a member under the same name: see ESHOP_INSTANCE" in ended.log
            if first.is_running and not second.is_running:
                assert await second.ends() == EXIT_CODE
                await first.until_ready()  # it has its place back
