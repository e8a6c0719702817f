"""Every refusal of the gateway, as RFC 9457 problem details: the table of codes and statuses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson
from aiohttp import web

CONTENT_TYPE = "application/problem+json"
#: Stable, and not meant to be fetched.
TYPE_PREFIX = "urn:eshop:problem:"
#: The waiting time before a client tries again.
RETRY_AFTER_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Kind:
    """A row of the table: the common part of all problems of a code."""

    status: int
    title: str
    retry: bool = False


#: By ``code``. A service's refusal has the service's own code.
KINDS: Mapping[str, Kind] = {
    "malformed-body": Kind(400, "The body is not one JSON object"),
    "bad-request": Kind(400, "The request is malformed"),
    "bad-query": Kind(400, "A query parameter is malformed"),
    "bad-cursor": Kind(400, "The cursor is unknown"),
    "bad-idempotency-key": Kind(400, "The Idempotency-Key is malformed"),
    "idempotency-key-required": Kind(400, "An Idempotency-Key is required"),
    "unauthenticated": Kind(401, "Authentication required"),
    "foreign-origin": Kind(403, "This origin may not open sockets"),
    "not-found": Kind(404, "Not found"),
    "no-account": Kind(404, "There is no account"),
    "method-not-allowed": Kind(405, "The method is not allowed here"),
    "request-timeout": Kind(408, "The body did not arrive in time"),
    "account-exists": Kind(409, "There is an account already"),
    "account-not-empty": Kind(409, "The account is not empty"),
    "account-in-use": Kind(409, "An order is still being paid from the account"),
    "currency-mismatch": Kind(409, "The account has another currency"),
    "reference-used": Kind(409, "The reference was used before"),
    "idempotency-in-progress": Kind(409, "The first request with this key is still running", retry=True),
    "conflict": Kind(409, "The request does not fit the present state"),
    "body-too-large": Kind(413, "The body is too large"),
    "unsupported-media-type": Kind(415, "The body must be plain application/json in UTF-8"),
    "invalid": Kind(422, "The request breaks a rule"),
    "invalid-order": Kind(422, "The order breaks a rule"),
    "idempotency-key-reused": Kind(422, "The key was used for another request"),
    "balance-too-large": Kind(422, "The balance would be too large"),
    "too-many-connections": Kind(429, "There are too many connections", retry=True),
    "internal": Kind(500, "Internal error"),
    "unavailable": Kind(503, "A service is down or full", retry=True),
    "slow": Kind(504, "A service did not answer in time", retry=True),
}


@dataclass(frozen=True, slots=True)
class Flaw:
    """A flaw of a body: its place, as a JSON pointer, and a message."""

    pointer: str
    message: str


class Problem(Exception):
    """A refusal on its way to the client. ``detail`` is for people; it repeats no input and no secret."""

    def __init__(
        self,
        code: str,
        detail: str = "",
        flaws: Sequence[Flaw] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code, detail)
        self.code = code
        self.kind = KINDS[code]
        self.detail = detail or f"{self.kind.title}."
        self.flaws = tuple(flaws)
        self.headers = dict(headers or {})

    def again(self) -> "Problem":
        """Return an equal Problem, for another caller: an exception is raised once."""
        return Problem(self.code, self.detail, self.flaws, self.headers)


def refused(code: str, detail: str, *, replayed: bool = False) -> Problem:
    """Return the problem for a service's refusal; a code without a row becomes a conflict."""
    headers = {"Idempotency-Replayed": "true"} if replayed else {}
    return Problem(code if code in KINDS else "conflict", detail, headers=headers)


def to_response(problem: Problem, trace_id: str) -> web.Response:
    """Render the problem. A 401 always has the same body, so it carries no trace."""
    document: dict[str, object] = {
        "type": TYPE_PREFIX + problem.code,
        "title": problem.kind.title,
        "status": problem.kind.status,
        "detail": problem.detail,
        "code": problem.code,
    }
    if problem.kind.status != 401:
        document["trace_id"] = trace_id
    if problem.flaws:
        document["errors"] = [{"pointer": flaw.pointer, "message": flaw.message} for flaw in problem.flaws]
    headers = {"Cache-Control": "no-store", **problem.headers}
    if problem.kind.retry:
        headers.setdefault("Retry-After", str(RETRY_AFTER_SECONDS))
    return web.Response(
        status=problem.kind.status, body=orjson.dumps(document), content_type=CONTENT_TYPE, headers=headers
    )
