"""What the HTTP parser refuses is a problem as well: nothing of the input comes back, and no version."""

import asyncio
import json
import logging

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

pytest_plugins = ["tests.support.gateway"]

Client = TestClient[web.Request, web.Application]

SECRET = "correct-horse-battery-staple"
PATH = b"/api/v1/orders"
HOST = b"Host: localhost\r\n"
MALFORMED = {
    "two hosts": b"GET " + PATH + b" HTTP/1.1\r\n" + HOST + HOST,
    "no host": b"GET " + PATH + b" HTTP/1.1\r\nX-A: b\r\n",
    "no method": b"\x16\x03\x01 / HTTP/1.1\r\n" + HOST,
    "an unknown version": b"GET " + PATH + b" HTTP/9.9\r\n" + HOST,
    "a space before the colon": b"GET " + PATH + b" HTTP/1.1\r\n" + HOST + b"X-A : b\r\n",
    "a folded header": b"GET " + PATH + b" HTTP/1.1\r\n" + HOST + b"X-A: b\r\n c\r\n",
    "a control character": b"GET " + PATH + b" HTTP/1.1\r\n" + HOST + b"X-A: b\x01c\r\n",
    "two lengths": b"POST " + PATH + b" HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\nContent-Length: 3\r\n",
    "a signed length": b"POST " + PATH + b" HTTP/1.1\r\n" + HOST + b"Content-Length: +2\r\n",
    "length and chunks": b"POST "
    + PATH
    + b" HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
    "an unknown expectation": b"GET " + PATH + b" HTTP/1.1\r\n" + HOST + b"Expect: x\r\n",
    "an unknown coding": b"POST " + PATH + b" HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: xchunked\r\n",
}
TOO_LARGE = {
    "a path of 9,000 characters": b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\n" + HOST,
    "a header of 9,000 characters": b"GET "
    + PATH
    + b" HTTP/1.1\r\n"
    + HOST
    + b"X-A: "
    + b"x" * 9_000
    + b"\r\n",
}


async def refused(client: Client, head: bytes) -> tuple[int, dict[str, str], dict[str, object]]:
    """Send a head with a secret in it; return status, headers and body of the response, read to its end."""
    reader, writer = await asyncio.open_connection(client.server.host, client.server.port)
    try:
        writer.write(head + b"Authorization: Bearer " + SECRET.encode() + b"\r\n\r\n")
        raw = await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
    assert SECRET.encode() not in raw
    top, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = top.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(first.split(" ")[1]), headers, json.loads(body)


def is_problem(status: int, code: str, answer: tuple[int, dict[str, str], dict[str, object]]) -> None:
    got, headers, document = answer
    assert (got, document["status"], document["code"]) == (status, status, code)
    assert headers["content-type"].startswith("application/problem+json")
    assert headers["server"] == "eshop"
    assert "aiohttp" not in str(headers).lower()
    assert document["type"] == f"/problems/{code}"


@pytest.mark.parametrize("head", MALFORMED.values(), ids=MALFORMED)
async def test_malformed_head_is_a_problem_without_an_echo(
    client: Client, caplog: pytest.LogCaptureFixture, head: bytes
) -> None:
    caplog.set_level(logging.DEBUG)
    is_problem(400, "bad-request", await refused(client, head))
    assert SECRET not in caplog.text


@pytest.mark.parametrize("head", TOO_LARGE.values(), ids=TOO_LARGE)
async def test_head_that_is_too_large_is_a_problem(client: Client, head: bytes) -> None:
    is_problem(431, "head-too-large", await refused(client, head))
