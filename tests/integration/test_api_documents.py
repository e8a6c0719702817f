"""The API's documents: complete, true to the router, and readable without another host."""

import re
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient

from gateway.app import OPERATIONS
from gateway.http.problems import KINDS

pytest_plugins = ["tests.support.gateway"]

Client = TestClient[web.Request, web.Application]


async def test_every_route_is_an_operation(client: Client) -> None:
    """The router also has a HEAD for each GET."""
    routed = {
        (route.method, route.resource.canonical)
        for route in client.app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    assert routed == {(operation.method, operation.path) for operation in OPERATIONS}


async def test_every_operation_says_what_it_does(client: Client) -> None:
    document = await (await client.get("/openapi.json")).json()
    assert document["openapi"] == "3.1.0"
    operations = [one for path in document["paths"].values() for one in path.values()]
    assert len({one["operationId"] for one in operations}) == len(operations) > 10
    for one in operations:
        assert one["summary"]
        assert one["responses"]
        assert all(
            parameter.get("description") or parameter["in"] == "path" for parameter in one["parameters"]
        )
    placing = document["paths"]["/api/v1/orders"]["post"]
    assert {"201", "202", "400", "401", "409", "413", "415", "422", "503", "504"} <= set(placing["responses"])
    assert {one["name"] for one in placing["parameters"]} == {"Idempotency-Key", "Prefer"}


async def test_every_reference_of_the_documents_leads_somewhere(client: Client) -> None:
    for path in ("/openapi.json", "/asyncapi.json"):
        document = await (await client.get(path)).json()
        references = set(re.findall(r'"\$ref": ?"#/([^"]*)"', (await (await client.get(path)).text())))
        assert references
        for reference in references:
            at: Any = document
            for part in reference.split("/"):
                at = at[part]


async def test_every_problem_has_a_page_and_the_type_of_a_problem_opens_it(client: Client) -> None:
    refused = await (await client.get("/api/v1/orders?limit=0")).json()
    page = await client.get(refused["type"])
    assert (page.status, page.content_type) == (200, "text/html")
    assert "bad-query" in await page.text()
    every = await (await client.get("/problems")).text()
    for code, kind in KINDS.items():
        assert f'href="/problems/{code}"' in every
        text = await (await client.get(f"/problems/{code}")).text()
        assert str(kind.status) in text
        assert kind.advice


async def test_viewer_needs_no_other_host(client: Client) -> None:
    page = await client.get("/docs")
    html = await page.text()
    assert "://" not in html
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    for file in re.findall(r'(?:href|src)="(/[^"]*)"', html):
        assert (await client.get(file)).status == 200
