"""The common parts of the routes: the context of a call, and the forms of responses."""

from collections.abc import Mapping, Sequence

import orjson
from aiohttp import web
from yarl import URL

from eshop.contracts.proto.shared_v1_pb2 import RequestContext
from gateway.app_keys import SETTINGS, TRACE
from gateway.cache import Reading
from gateway.http.conditions import Condition, etag
from gateway.http.idempotency import REPLAYED_HEADER, fingerprint, key_of
from gateway.http.queries import cursor_text

BASE = "/api/v1"
#: For a response about a user's objects: no cache may keep it for others, or reuse it without validation.
_PRIVATE = {"Cache-Control": "private, no-cache"}


def context_of(request: web.Request, user_id: str, body: object) -> RequestContext:
    """Return the context of a POST; raise a 400 Problem if its Idempotency-Key is malformed."""
    context = keyless_context(request, user_id)
    if key := idempotency_key(request):
        context.idempotency_key = key
        context.fingerprint = fingerprint(request.method, request.rel_url.raw_path, body)
    return context


def keyless_context(request: web.Request, user_id: str) -> RequestContext:
    """Return the context of an idempotent request."""
    trace = request[TRACE]
    return RequestContext(user_id=user_id, correlation_id=trace.correlation_id, traceparent=trace.traceparent)


def idempotency_key(request: web.Request) -> str:
    """Return the request's key, or ""; raise a 400 Problem."""
    return key_of(request, required=request.app[SETTINGS].idempotency_required)


def created(
    document: object, headers: Mapping[str, str], *, replayed: bool, status: int = 201
) -> web.Response:
    """Return the result of a POST. ``replayed``: of an earlier request with the same key."""
    replay = {REPLAYED_HEADER: "true"} if replayed else {}
    return json_response(document, status=status, headers={**headers, **replay})


def json_response(
    document: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Return a document for its user only."""
    return web.Response(
        status=status,
        body=orjson.dumps(document),
        content_type="application/json",
        headers={**_PRIVATE, **(headers or {})},
    )


def no_content() -> web.Response:
    """Return an empty success."""
    return web.Response(status=204, headers=_PRIVATE)


def page_answer(request: web.Request, items: Sequence[object], next_feed_number: int) -> web.Response:
    """Return a page of a list with a link to the next page; ``next_feed_number`` 0: no next page."""
    next_cursor = cursor_text(next_feed_number) if next_feed_number else None
    headers = {}
    if next_cursor is not None:
        following = URL(request.path).with_query({**request.query, "cursor": next_cursor})
        headers["Link"] = f'<{following}>; rel="next"'
    return json_response({"items": items, "next_cursor": next_cursor}, headers=headers)


def versioned(reading: Reading, condition: Condition) -> web.Response:
    """Return an object with its ETag, or 304 if the reader has it; ``Age`` if it comes from the cache."""
    headers = {**_PRIVATE, "ETag": etag(reading.version)}
    if reading.age_seconds is not None:
        headers["Age"] = str(reading.age_seconds)
    if condition.met_by(reading.version):
        return web.Response(status=304, headers=headers)
    return web.Response(body=reading.body, content_type="application/json", headers=headers)
