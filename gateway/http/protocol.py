"""The refusals of the HTTP parser as problems: they repeat nothing of the input, and name no versions."""

import logging

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from gateway.http.middleware import complete
from gateway.http.problems import Problem, to_response
from gateway.http.tracing import trace_of

logger = logging.getLogger(__name__)


class _Connection(RequestHandler):
    """A connection whose requests can be malformed."""

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Respond; with a problem to an unknown ``Expect``, which is refused before any middleware."""
        if isinstance(resp, web.HTTPExpectationFailed):
            resp = self.handle_error(request, resp.status)
        return await super().finish_response(request, resp, start_time)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the problem, and close the connection: the next request's begin is unknown.

        ``message`` repeats the input, which may hold a secret: it is neither sent nor logged.
        """
        trace = trace_of(request)
        if status >= 500:
            logger.error("a request failed, trace %s", trace.trace_id, exc_info=exc)
            problem = Problem("internal")
        else:
            problem = Problem("head-too-large" if isinstance(exc, LineTooLong) else "bad-request")
        if request.writer.output_size > 0:
            raise ConnectionError("the response has begun already")
        response = to_response(problem, trace.trace_id)
        complete(response, trace)
        response.force_close()
        return response


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class ProblemRunner(web.AppRunner):
    """A runner whose server refuses malformed requests with problems."""

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        server.__class__ = _Server  # aiohttp makes the server itself, and has no setting for its connections
        return server
