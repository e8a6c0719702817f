"""Query strings: a model for each operation, as strict as a body's."""

import base64
import binascii
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic_core import PydanticCustomError

from eshop.contracts.limits import PAGE_MAX
from gateway.http.conditions import WAIT_SECONDS_MAX
from gateway.http.problems import Problem

LIMIT_DEFAULT = 20
INTEGER_MAX = 2**63 - 1

_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_CURSOR = re.compile(r"before=([1-9][0-9]{0,18})")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)")
_BAD_CURSOR = "bad_cursor"

_Model = TypeVar("_Model", bound="Query")


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise PydanticCustomError("number", "Input should be a whole number")
    return int(text)


def _time(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text).astimezone(UTC) if _TIME.fullmatch(text) else None
    except (ValueError, OverflowError):
        # The second: a time that exists at its offset, and in UTC is before the first year or after the last.
        at = None
    if at is None or at.year < 2:
        raise PydanticCustomError("time", "Input should be an RFC 3339 time with its offset (write + as %2B)")
    return at


def _before_feed_number(cursor: str) -> int:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        match = _CURSOR.fullmatch(base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii"))
    except (binascii.Error, ValueError):
        match = None
    if match is None or int(match[1]) > INTEGER_MAX or cursor_text(int(match[1])) != cursor:
        raise PydanticCustomError(_BAD_CURSOR, "Input should be the next_cursor of a page")
    return int(match[1])


def cursor_text(before_feed_number: int) -> str:
    """Return the opaque cursor of the page that starts before a feed number."""
    return base64.urlsafe_b64encode(b"before=%d" % before_feed_number).decode().rstrip("=")


Limit = Annotated[int, Field(ge=1, le=PAGE_MAX), BeforeValidator(_number)]
Seconds = Annotated[int, Field(ge=0, le=WAIT_SECONDS_MAX), BeforeValidator(_number)]
Time = Annotated[datetime, BeforeValidator(_time), WithJsonSchema({"type": "string", "format": "date-time"})]
Cursor = Annotated[int, BeforeValidator(_before_feed_number), WithJsonSchema({"type": "string"})]


class Query(BaseModel):
    """An operation's query. A model without fields: the operation has none."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class PageQuery(Query):
    """A page of a user's objects, newest first. ``before_feed_number`` 0: the first page."""

    limit: Annotated[Limit, Field(description="The largest number of items in the page.")] = LIMIT_DEFAULT
    before_feed_number: Annotated[
        Cursor, Field(alias="cursor", description="The ``next_cursor`` of the page before.")
    ] = 0


class OrdersQuery(PageQuery):
    """A page of a user's orders; None matches all."""

    status: Annotated[
        Literal["NEW", "FINISHED", "CANCELLED"] | None, Field(description="Orders with this status only.")
    ] = None
    created_after: Annotated[Time | None, Field(description="Orders that were placed later only.")] = None
    created_before: Annotated[Time | None, Field(description="Orders that were placed earlier only.")] = None


class OrderQuery(Query):
    """A read of an order."""

    wait: Annotated[Seconds, Field(description="The seconds to wait for the order's outcome.")] = 0


def read_query(model: type[_Model], request: web.BaseRequest) -> _Model:
    """Return the query; raise a 400 Problem. Its detail names the operation's own parameters only."""
    given = request.query
    if len(given) != len(set(given)):
        raise Problem("bad-query", "A parameter is given more than once.")
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        raise _problem(model, error.errors(include_url=False)[0]) from error


def _problem(model: type[Query], flaw: Any) -> Problem:
    if flaw["type"] == _BAD_CURSOR:
        return Problem("bad-cursor")
    if flaw["type"] == "extra_forbidden":
        known = [field.alias or name for name, field in model.model_fields.items()]
        return Problem("bad-query", f"The parameters here: {', '.join(known) or 'none'}.")
    return Problem("bad-query", f"{flaw['loc'][0]}: {flaw['msg']}.")
