"""Tracing: W3C trace context and the correlation id of a request, for logs and messages."""

import re
import secrets
from dataclasses import dataclass

import uuid_utils
from aiohttp import web

TRACEPARENT_HEADER = "traceparent"
REQUEST_ID_HEADER = "X-Request-Id"

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._~-]{1,64}")


@dataclass(frozen=True, slots=True)
class Trace:
    """The trace of a request, with a span of the gateway in it, and the correlation id."""

    trace_id: str
    traceparent: str
    correlation_id: str


def trace_of(request: web.BaseRequest) -> Trace:
    """Take the caller's trace if it is valid, or begin a trace; the same for the request id."""
    trace_id, flags = _caller_trace(request.headers.get(TRACEPARENT_HEADER, ""))
    request_id = request.headers.get(REQUEST_ID_HEADER, "")
    return Trace(
        trace_id,
        f"00-{trace_id}-{secrets.token_hex(8)}-{flags}",
        request_id if _REQUEST_ID.fullmatch(request_id) else str(uuid_utils.uuid7()),
    )


def _caller_trace(header: str) -> tuple[str, str]:
    match = _TRACEPARENT.fullmatch(header)
    if match is None or not match[1].strip("0") or not match[2].strip("0"):
        return secrets.token_hex(16), "01"
    return match[1], match[3]
