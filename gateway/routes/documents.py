"""The API's documents: OpenAPI, AsyncAPI, their viewer, and a page for each problem."""

from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from importlib.metadata import version
from importlib.resources import files

import orjson
from aiohttp import web

from gateway.app_keys import DOCUMENTS
from gateway.http.api import Api, Operation
from gateway.http.asyncapi import asyncapi
from gateway.http.openapi import openapi
from gateway.http.problems import KINDS, TYPE_PREFIX, Kind, Problem

_POLICY = (
    "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
#: The viewer sets styles on its elements.
_VIEWER_POLICY = f"{_POLICY}; style-src 'self' 'unsafe-inline'"
#: The viewer's files: swagger-ui-dist 5.35.0, which is under the Apache License 2.0, and our start of it.
_FILES: Mapping[str, str] = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "start.js": "text/javascript",
    "LICENSE": "text/plain",
    "NOTICE": "text/plain",
}
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>eShop: {title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/pages/shop.css">
</head>
<body>{content}</body>
</html>
"""

api = Api("documents")


def make_documents(operations: Sequence[Operation]) -> dict[str, bytes]:
    """Return the documents by name."""
    release = version("eshop")
    return {
        "openapi": orjson.dumps(openapi(operations, release)),
        "asyncapi": orjson.dumps(asyncapi(release)),
    }


@api.public("/openapi.json", answers={200: "application/json"})
async def openapi_document(request: web.Request) -> web.Response:
    """Return this description of the API, in OpenAPI 3.1."""
    return _text(request.app[DOCUMENTS]["openapi"], "application/json", _POLICY)


@api.public("/asyncapi.json", answers={200: "application/json"})
async def asyncapi_document(request: web.Request) -> web.Response:
    """Return the description of the messages on Kafka's topics, in AsyncAPI 3.0."""
    return _text(request.app[DOCUMENTS]["asyncapi"], "application/json", _POLICY)


@api.public("/docs", answers={200: "text/html"})
async def viewer(request: web.Request) -> web.Response:
    """Show the API's description, with forms to try it."""
    return _text(_bytes("index.html"), "text/html", _VIEWER_POLICY)


@api.public("/docs/{file}", answers={200: "text/plain"}, problems=["not-found"])
async def viewer_file(request: web.Request) -> web.Response:
    """Return a file of the viewer."""
    name = request.match_info["file"]
    if name not in _FILES:
        raise Problem("not-found")
    return _text(_bytes(name), _FILES[name], _POLICY)


@api.public("/problems", answers={200: "text/html"})
async def problem_pages(request: web.Request) -> web.Response:
    """List all problems."""
    rows = "".join(
        f'<tr><td>{kind.status}</td><td><a href="{TYPE_PREFIX}{code}">{code}</a></td>'
        f"<td>{escape(kind.title)}</td></tr>"
        for code, kind in KINDS.items()
    )
    return _page("Problems", f"<h1>Problems</h1><table>{rows}</table>")


@api.public("/problems/{code}", answers={200: "text/html"}, problems=["not-found"])
async def problem_page(request: web.Request) -> web.Response:
    """Explain a problem: the type of a refusal is the address of its page."""
    code = request.match_info["code"]
    if code not in KINDS:
        raise Problem("not-found")
    return _page(KINDS[code].title, _explanation(code, KINDS[code]))


def _explanation(code: str, kind: Kind) -> str:
    again = "<p>The same request may succeed later.</p>" if kind.retry else ""
    return (
        f"<h1>{escape(kind.title)}</h1><p>Status {kind.status}, code <code>{code}</code>.</p>"
        f'<p>{escape(kind.advice)}</p>{again}<p><a href="{TYPE_PREFIX[:-1]}">All problems</a></p>'
    )


def _page(title: str, content: str) -> web.Response:
    return _text(_PAGE.format(title=escape(title), content=content).encode(), "text/html", _POLICY)


def _text(body: bytes, content_type: str, policy: str) -> web.Response:
    headers = {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
    }
    return web.Response(body=body, content_type=content_type, charset="utf-8", headers=headers)


@cache
def _bytes(name: str) -> bytes:
    return (files("gateway") / "pages" / "swagger" / name).read_bytes()
