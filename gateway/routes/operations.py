"""What operators ask: is it alive, is it ready, what are its numbers."""

from aiohttp import web

from gateway.keys import HEALTH, METRICS

routes = web.RouteTableDef()


@routes.get("/health/live")
async def live(request: web.Request) -> web.Response:
    """Answer: the process and its event loop run."""
    return web.Response(text="alive\n")


@routes.get("/health/ready")
async def ready(request: web.Request) -> web.Response:
    """Show each dependency on a line of its own; 503 where one that is needed is missing."""
    report = await request.app[HEALTH].report()
    return web.Response(status=200 if report.ready else 503, text="\n".join(report.lines) + "\n")


@routes.get("/metrics")
async def metrics(request: web.Request) -> web.Response:
    """Show every number, in Prometheus' text format."""
    return web.Response(
        body=request.app[METRICS].text(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
    )
