"""The middleware of every request: trace, problems for all failures, one log line, metrics."""

import logging
import time

from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.app_keys import HEALTH, METRICS, TRACE
from gateway.http.problems import Problem, to_response
from gateway.http.tracing import REQUEST_ID_HEADER, Trace, trace_of

PATH_CHARACTERS_LOGGED_MAX = 200

_access = logging.getLogger("gateway.access")
logger = logging.getLogger(__name__)


@web.middleware
async def observed(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Respond, whatever happens below, and log the request in one line without its query string."""
    trace = request[TRACE] = trace_of(request)
    began = time.perf_counter()
    status = 499
    try:
        response = await _answered(request, handler, trace.trace_id)
        status = response.status
    finally:
        seconds = time.perf_counter() - began
        _count(request, status, seconds)
        if _access.isEnabledFor(logging.INFO):
            path = request.rel_url.raw_path[:PATH_CHARACTERS_LOGGED_MAX]
            _access.info("%s %s %d %.1fms %s", request.method, path, status, seconds * 1e3, trace.trace_id)
    if not response.prepared:
        if request.app[HEALTH].is_stopping:
            # The next request should go to another gateway.
            response.force_close()
        complete(response, trace)
    return response


def complete(response: web.StreamResponse, trace: Trace) -> None:
    """Add the headers of every response."""
    response.headers[REQUEST_ID_HEADER] = trace.correlation_id
    response.headers["X-Content-Type-Options"] = "nosniff"
    # In place of the versions of aiohttp and Python.
    response.headers["Server"] = "eshop"


async def _answered(request: web.Request, handler: Handler, trace_id: str) -> web.StreamResponse:
    try:
        return await handler(request)
    except Problem as problem:
        return to_response(problem, trace_id)
    except web.HTTPMethodNotAllowed as error:
        return to_response(Problem("method-not-allowed", headers={"Allow": error.headers["Allow"]}), trace_id)
    except web.HTTPNotFound:
        return to_response(Problem("not-found"), trace_id)
    except web.HTTPRequestEntityTooLarge:
        return to_response(Problem("body-too-large"), trace_id)
    except web.HTTPException as error:
        # aiohttp's own, such as a malformed WebSocket handshake.
        return to_response(Problem("bad-request" if error.status < 500 else "internal"), trace_id)
    except Exception:
        logger.exception("a request failed, trace %s", trace_id)
        return to_response(Problem("internal"), trace_id)


def _count(request: web.Request, status: int, seconds: float) -> None:
    metrics = request.app[METRICS]
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else "unknown"
    method = request.method if request.method in ("GET", "POST", "DELETE", "HEAD") else "other"
    metrics.requests.labels(method, route, status).inc()
    metrics.request_seconds.labels(method, route).observe(seconds)
