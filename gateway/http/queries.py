"""Query strings and conditions: pages, filters, waits, ETags."""

import base64
import binascii
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from aiohttp import web

from eshop.contracts.limits import PAGE_MAX
from eshop.contracts.statuses import STATUSES
from gateway.http.problems import Problem

LIMIT_DEFAULT = 20
WAIT_SECONDS_MAX = 30
INTEGER_MAX = 2**63 - 1

_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_CURSOR = re.compile(r"before=([1-9][0-9]{0,18})")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)")
_ETAG = re.compile(r'(?:W/)?"([^"]*)"')
_PREFER_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?=$|[,;])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PageQuery:
    """A page of a user's objects, newest first. ``before_feed_number`` 0: the first page."""

    limit: int
    before_feed_number: int


@dataclass(frozen=True, slots=True)
class OrderFilter:
    """A filter of a user's orders; "" and None match all."""

    status: str
    created_after: datetime | None
    created_before: datetime | None


def page_query(request: web.BaseRequest) -> PageQuery:
    """Read the query of every list; raise a 400 Problem."""
    query = request.query
    limit = _number("limit", query.get("limit", str(LIMIT_DEFAULT)), 1, PAGE_MAX)
    return PageQuery(limit, _before_number(query.get("cursor")))


def order_filter(request: web.BaseRequest) -> OrderFilter:
    """Read the filter of the list of orders; raise a 400 Problem."""
    query = request.query
    status = query.get("status", "")
    if "status" in query and status not in STATUSES:
        raise Problem("bad-query", f"status is one of {', '.join(STATUSES)}.")
    return OrderFilter(
        status,
        _time("created_after", query.get("created_after")),
        _time("created_before", query.get("created_before")),
    )


def cursor_text(before_feed_number: int) -> str:
    """Return the opaque cursor of the page that starts before a feed number."""
    return base64.urlsafe_b64encode(b"before=%d" % before_feed_number).decode().rstrip("=")


def wait_query(request: web.BaseRequest) -> int:
    """Return the seconds of ``?wait=N``, 0 for none; raise a 400 Problem."""
    return _number("wait", request.query.get("wait", "0"), 0, WAIT_SECONDS_MAX)


def wait_preferred(request: web.BaseRequest) -> int:
    """Return the seconds of ``Prefer: wait=N`` (RFC 7240), bounded; 0 for none."""
    match = _PREFER_WAIT.search(",".join(request.headers.getall("Prefer", [])))
    return min(int(match[1]), WAIT_SECONDS_MAX) if match else 0


def etag(version: int) -> str:
    """Return the entity tag of a version."""
    return f'"{version}"'


@dataclass(frozen=True, slots=True)
class Condition:
    """The content of ``If-None-Match``: the reader's versions, or any version."""

    versions: frozenset[int]
    any: bool = False

    @property
    def floor(self) -> int:
        """The reader's newest version: no older version may be returned."""
        return max(self.versions, default=0)

    def met_by(self, version: int) -> bool:
        """Tell whether the reader has this version already."""
        return self.any or version in self.versions


def condition_of(request: web.BaseRequest) -> Condition:
    """Read ``If-None-Match``; foreign tags match nothing."""
    header = ",".join(request.headers.getall("If-None-Match", []))
    if header.strip() == "*":
        return Condition(frozenset(), any=True)
    tags = (match[1] for match in _ETAG.finditer(header))
    return Condition(frozenset(int(tag) for tag in tags if _NUMBER.fullmatch(tag)))


def _number(name: str, text: str, least: int, most: int) -> int:
    if not _NUMBER.fullmatch(text) or not least <= int(text) <= most:
        raise Problem("bad-query", f"{name} is a whole number from {least} to {most}.")
    return int(text)


def _before_number(cursor: str | None) -> int:
    if cursor is None:
        return 0
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        match = _CURSOR.fullmatch(base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii"))
    except (binascii.Error, ValueError):
        match = None
    if match is None or int(match[1]) > INTEGER_MAX or cursor_text(int(match[1])) != cursor:
        raise Problem("bad-cursor")
    return int(match[1])


def _time(name: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text).astimezone(UTC) if _TIME.fullmatch(text) else None
    except (ValueError, OverflowError):
        # The second: a time that exists at its offset, and in UTC is before the first year or after the last.
        at = None
    if at is None or at.year < 2:
        raise Problem("bad-query", f"{name} is an RFC 3339 time with its offset (write + as %2B).")
    return at
