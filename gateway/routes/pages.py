"""The page for people at `/`, and its files: read once, served from memory, nothing from elsewhere."""

from functools import cache
from importlib.resources import files

from aiohttp import web

from gateway.http.api import Api

_TYPES = {"index.html": "text/html", "shop.js": "text/javascript", "shop.css": "text/css"}
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; connect-src 'self' ws: wss:; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
}

api = Api("pages")


@api.public("/", answers={200: "text/html"})
async def index(request: web.Request) -> web.Response:
    """Show the shop."""
    return _file("index.html")


@api.public("/pages/shop.js", answers={200: "text/javascript"})
async def script(request: web.Request) -> web.Response:
    """Return the page's script."""
    return _file("shop.js")


@api.public("/pages/shop.css", answers={200: "text/css"})
async def style(request: web.Request) -> web.Response:
    """Return the page's style."""
    return _file("shop.css")


def _file(name: str) -> web.Response:
    return web.Response(body=_bytes(name), content_type=_TYPES[name], charset="utf-8", headers=_HEADERS)


@cache
def _bytes(name: str) -> bytes:
    return (files("gateway") / "pages" / name).read_bytes()
