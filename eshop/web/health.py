"""Health and metrics of a worker, for supervisors, load balancers and Prometheus.

``/health/live``: the event loop turns. ``/health/ready``: every dependency answers. ``/metrics``: the
process's default Prometheus registry, with Faust's own numbers.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import faust
from aiohttp.web import Response
from faust.web import Request, View
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

#: Raises if the dependency doesn't answer. ``NotReady`` has the reason; of other errors only the type is
#: shown.
Check = Callable[[], Awaitable[None]]

#: A check that takes longer counts as failed: a probe must not hang.
CHECK_SECONDS_MAX = 2.0

logger = logging.getLogger(__name__)


class NotReady(Exception):
    """A dependency is not usable now. Readiness shows the text."""


def install_health(app: faust.App, checks: Mapping[str, Check]) -> None:
    """Serve ``/health/live``, ``/health/ready`` and ``/metrics``. ``checks`` is read at each request."""

    @app.page("/health/live")
    async def live(view: View, _request: Request) -> Any:
        return view.json({"status": "live"})

    @app.page("/health/ready")
    async def ready(view: View, _request: Request) -> Any:
        answers = await run_checks(checks)
        is_ready = all(answer == "ok" for answer in answers.values())
        body = {"status": "ready" if is_ready else "not ready", "checks": answers}
        return view.json(body, status=200 if is_ready else 503)

    @app.page("/metrics")
    async def metrics(_view: View, _request: Request) -> Any:
        return Response(body=generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def run_checks(checks: Mapping[str, Check]) -> dict[str, str]:
    """Run all checks at once; return ``ok`` or the fault for each name. Never raises."""
    answers = await asyncio.gather(*(_answer(name, check) for name, check in checks.items()))
    return dict(zip(checks, answers, strict=True))


async def _answer(name: str, check: Check) -> str:
    try:
        async with asyncio.timeout(CHECK_SECONDS_MAX):
            await check()
    except NotReady as reason:
        return str(reason)
    except TimeoutError:
        return f"no answer in {CHECK_SECONDS_MAX:g} s"
    except Exception as error:  # noqa: BLE001  whatever it is, the answer is "not ready"
        logger.warning("readiness check %s failed: %r", name, error)
        return f"failed: {type(error).__name__}"
    return "ok"


async def check_kafka(app: faust.App) -> None:
    """Raise NotReady unless the worker is a settled member of its group and sees the group's coordinator."""
    if not app.started or app.should_stop:
        raise NotReady("the worker is not running")
    if app.rebalancing or not cast("Any", app.tables).recovery.completed.is_set():
        raise NotReady("partitions are being assigned")
    # Faust shows no connection state; aiokafka forgets the coordinator at the first failed heartbeat.
    consumer = getattr(getattr(app.consumer, "_thread", None), "_consumer", None)
    coordinator = getattr(consumer, "_coordinator", None)
    if coordinator is None or coordinator.coordinator_id is None:
        raise NotReady("the group's coordinator does not answer")
