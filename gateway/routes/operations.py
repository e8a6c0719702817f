"""The operators' routes: live, started, ready, metrics."""

from aiohttp import web

from gateway.app_keys import HEALTH, METRICS
from gateway.http.answers import HealthAnswer, LiveAnswer
from gateway.http.api import Api
from gateway.http.responses import json_response

api = Api("operations")


@api.public("/health/live", answers={200: LiveAnswer})
async def live(request: web.Request) -> web.Response:
    """Answer: the process and its event loop run."""
    return json_response({"status": "live"})


@api.public("/health/started", answers={200: HealthAnswer, 503: HealthAnswer})
async def started(request: web.Request) -> web.Response:
    """Tell whether every dependency has answered once: for starts in order. It stays true."""
    health = request.app[HEALTH]
    return _health(request, "started" if health.is_started else "not started", ok=health.is_started)


@api.public("/health/ready", answers={200: HealthAnswer, 503: HealthAnswer})
async def ready(request: web.Request) -> web.Response:
    """Tell whether to send requests here; ``checks`` names missing dependencies, which do not decide."""
    health = request.app[HEALTH]
    status = "ready" if health.is_ready else "stopping" if health.is_stopping else "not ready"
    return _health(request, status, ok=health.is_ready)


@api.public("/metrics", answers={200: "text/plain"})
async def metrics(request: web.Request) -> web.Response:
    """Show every number, in Prometheus' text format."""
    return web.Response(
        body=request.app[METRICS].text(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
    )


def _health(request: web.Request, status: str, *, ok: bool) -> web.Response:
    """Return the health response, in the workers' form."""
    return json_response({"status": status, "checks": request.app[HEALTH].answers}, status=200 if ok else 503)
