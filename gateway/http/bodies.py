"""Reads a JSON body: bounded in size, time and depth, and exactly one object."""

import asyncio
import json
from typing import Any, NoReturn, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from gateway.http.problems import Flaw, Problem

_Model = TypeVar("_Model", bound=BaseModel)

BODY_BYTES_MAX = 64 * 1024
BODY_SECONDS_MAX = 10.0
#: The deepest valid body has 3 levels.
DEPTH_MAX = 16
#: Enough to mend a request by; more would let a small request make a large answer.
FLAWS_MAX = 50


async def read_object(request: web.Request) -> dict[str, Any]:
    """Return the body's object; raise a 400, 408, 413 or 415 Problem."""
    _must_be_json(request)
    return parse_object(await _read(request))


async def must_be_empty(request: web.Request) -> None:
    """Accept no body, or an empty object; raise a Problem for everything else."""
    if request.can_read_body and (fields := await read_object(request)):
        raise Problem("invalid", flaws=[Flaw(_pointer((name,)), "is not known here") for name in fields][:1])


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse strictly: UTF-8, one object, no duplicate name, no NaN, nothing after it; raise a 400 Problem."""
    try:
        parsed = json.loads(body.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        # Not the parser's words: they can repeat the input.
        raise Problem("malformed-body", "The body is not valid JSON.") from error
    if not isinstance(parsed, dict):
        raise Problem("malformed-body", "The body is not an object.")
    _must_be_shallow(parsed)
    return parsed


def validated(model: type[_Model], fields: dict[str, Any]) -> _Model:
    """Return the model; raise the 422 Problem that points at every flaw."""
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        flaws = [
            Flaw(_pointer(flaw["loc"]), flaw["msg"]) for flaw in error.errors(include_url=False)[:FLAWS_MAX]
        ]
        raise Problem("invalid", flaws=flaws) from error


def _must_be_json(request: web.Request) -> None:
    if "Content-Encoding" in request.headers:
        raise Problem("unsupported-media-type", "Send the body uncompressed.")
    if request.content_type != "application/json" or (request.charset or "utf-8").lower() != "utf-8":
        raise Problem("unsupported-media-type")


async def _read(request: web.Request) -> bytes:
    if (request.content_length or 0) > BODY_BYTES_MAX:
        raise Problem("body-too-large")
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise Problem("body-too-large") from error
    except TimeoutError as error:
        raise Problem("request-timeout") from error
    except (web.RequestPayloadError, ConnectionError) as error:
        raise Problem("malformed-body", "The body broke off.") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a name appears twice")
    return fields


def _no_constant(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


def _must_be_shallow(document: object) -> None:
    level: list[object] = [document]
    for _ in range(DEPTH_MAX):
        level = [child for node in level for child in _children(node)]
        if not level:
            return
    raise Problem("malformed-body", f"The body is nested deeper than {DEPTH_MAX} levels.")


def _children(node: object) -> list[object]:
    match node:
        case dict():
            return list(node.values())
        case list():
            return node
        case _:
            return []


def _pointer(location: tuple[int | str, ...]) -> str:
    parts = (str(part).replace("~", "~0").replace("/", "~1") for part in location)
    # A name may hold characters that UTF-8 can't: the response must still be rendered.
    return "".join(f"/{part}" for part in parts).encode(errors="replace").decode()
