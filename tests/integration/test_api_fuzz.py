"""What the description of the API allows and forbids, sent by schemathesis to a gateway before real services.

All its checks are on but the one for credentials, because a header names any user.
"""

import asyncio
import sys
from pathlib import Path

import pytest
from aiohttp import web

from eshop.cluster.ports import free_port
from eshop.settings import Settings
from gateway.app import create_app
from gateway.http.protocol import ProblemRunner
from gateway.server import SERVER_OPTIONS
from tests.support.builders import new_id
from tests.support.shop_process import Shop

SECONDS_MAX = 240
#: Of random requests, after every boundary once: two minutes (7,000 requests) found no more than this.
FUZZING_SECONDS = 15
#: What schema-valid requests may meet besides a success: a cursor is opaque, and a key may be used up.
CONFIGURATION = """
seed = 1

[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", 401, 403, 404, 409, 422, 429, 503, 504]

[[operations]]
include-operation-id = ["list_orders", "list_transfers"]
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 401]
"""


@pytest.mark.timeout(SECONDS_MAX + 60)
async def test_description_and_gateway_agree(shop: Shop, tmp_path: Path) -> None:
    settings = Settings(
        orders_grpc=f"127.0.0.1:{shop.ports['orders']['grpc']}",
        payments_grpc=f"127.0.0.1:{shop.ports['payments']['grpc']}",
        kafka=f"127.0.0.1:{shop.ports['kafka']['kafka']}",
    )
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    runner = ProblemRunner(create_app(settings), access_log=None, **SERVER_OPTIONS)
    await runner.setup()
    address = "127.0.0.1", free_port(set())
    await web.TCPSite(runner, *address).start()
    try:
        process = await asyncio.create_subprocess_exec(
            *(
                str(Path(sys.executable).with_name("schemathesis")),
                "run",
                "http://{}:{}/openapi.json".format(*address),
            ),
            *(
                "--checks",
                "all",
                "--exclude-checks",
                "ignored_auth",
                "--max-examples",
                "5",
                "--phases",
                "examples,coverage,fuzzing",
            ),
            *("-H", f"X-User-Id: fuzz-{new_id()}", "--request-timeout", "40", "--no-color"),
            *("--warnings", "off", "--max-time", str(FUZZING_SECONDS)),
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await asyncio.wait_for(process.communicate(), SECONDS_MAX)
    finally:
        await runner.cleanup()
    assert process.returncode == 0, said.decode()
