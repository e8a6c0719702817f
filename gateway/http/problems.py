"""Every refusal of the gateway, as RFC 9457 problem details: the table of codes and statuses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson
from aiohttp import web

CONTENT_TYPE = "application/problem+json"
#: The address of the page that explains a problem, without its code.
TYPE_PREFIX = "/problems/"
#: The waiting time before a client tries again.
RETRY_AFTER_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Kind:
    """A row of the table: the common part of all problems of a code. ``advice`` is for the problem's page."""

    status: int
    title: str
    advice: str
    retry: bool = False


#: By ``code``. A service's refusal has the service's own code.
KINDS: Mapping[str, Kind] = {
    "malformed-body": Kind(
        400,
        "The body is not one JSON object",
        "Send one JSON object in UTF-8, at most 16 levels deep, in which no name appears twice.",
    ),
    "bad-request": Kind(
        400,
        "The request is malformed",
        "The head of the request could not be parsed. Check the client, or a proxy between.",
    ),
    "bad-query": Kind(
        400,
        "A query parameter is malformed",
        "Send only the parameters that the operation has, each once. The detail names the flaw.",
    ),
    "bad-cursor": Kind(
        400,
        "The cursor is unknown",
        "Send the next_cursor of a page as it came, or begin again without a cursor.",
    ),
    "bad-idempotency-key": Kind(
        400, "The Idempotency-Key is malformed", "Send one key of 1 to 255 visible ASCII characters."
    ),
    "idempotency-key-required": Kind(
        400,
        "An Idempotency-Key is required",
        "This shop takes a POST only with an Idempotency-Key. Make a new key for each intent.",
    ),
    "unauthenticated": Kind(
        401, "Authentication required", "Name the user as the shop's operator has set it up."
    ),
    "foreign-origin": Kind(
        403, "This origin may not open sockets", "The operator has to allow the page's origin."
    ),
    "not-found": Kind(
        404,
        "Not found",
        "The object does not exist, or belongs to another user. Both look the same on purpose.",
    ),
    "no-account": Kind(404, "There is no account", "Open an account first."),
    "method-not-allowed": Kind(
        405, "The method is not allowed here", "The Allow header names the methods of this address."
    ),
    "request-timeout": Kind(408, "The body did not arrive in time", "Send the body within 10 seconds."),
    "account-exists": Kind(409, "There is an account already", "Each user has one account. Read it instead."),
    "account-not-empty": Kind(
        409, "The account is not empty", "Only an account without money can be closed."
    ),
    "account-in-use": Kind(
        409,
        "An order is still being paid from the account",
        "Wait until the order is FINISHED or CANCELLED, then close the account again.",
    ),
    "currency-mismatch": Kind(409, "The account has another currency", "Use the currency of the account."),
    "reference-used": Kind(
        409,
        "The reference was used before",
        "A top-up with this reference was made. Read the transfers before another attempt.",
    ),
    "idempotency-in-progress": Kind(
        409,
        "The first request with this key is still running",
        "Repeat the request with the same key after the time in Retry-After.",
        retry=True,
    ),
    "conflict": Kind(
        409, "The request does not fit the present state", "Read the object again, and decide again."
    ),
    "body-too-large": Kind(413, "The body is too large", "Send at most 64 KiB."),
    "unsupported-media-type": Kind(
        415,
        "The body must be plain application/json in UTF-8",
        "Send Content-Type: application/json, in UTF-8, without a Content-Encoding.",
    ),
    "head-too-large": Kind(
        431, "The URL or a header is too large", "The URL and each header may have at most 8,190 bytes."
    ),
    "invalid": Kind(
        422, "The request breaks a rule", "Each entry of errors names a place in the body and its flaw."
    ),
    "invalid-order": Kind(422, "The order breaks a rule", "The detail names the rule."),
    "idempotency-key-reused": Kind(
        422,
        "The key was used for another request",
        "Make a new key for a new request. A key belongs to one method, path and body.",
    ),
    "balance-too-large": Kind(422, "The balance would be too large", "Top up a smaller amount."),
    "too-many-connections": Kind(
        429,
        "There are too many connections",
        "Close a connection of the user, or come back after the time in Retry-After.",
        retry=True,
    ),
    "internal": Kind(
        500,
        "Internal error",
        "The fault is the shop's. Repeat the request with the same Idempotency-Key, and report the trace_id.",
    ),
    "unavailable": Kind(
        503,
        "A service is down or full",
        "Repeat the request with the same Idempotency-Key after the time in Retry-After.",
        retry=True,
    ),
    "slow": Kind(
        504,
        "A service did not answer in time",
        "The outcome is unknown: repeat the request with the same Idempotency-Key, which takes effect once.",
        retry=True,
    ),
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
    """Render the problem (RFC 9457). A 401 always has the same body, so it carries no trace."""
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
