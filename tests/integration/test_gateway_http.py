"""The gateway's REST behaviour over HTTP, before services in memory behind real gRPC."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import grpc
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from yarl import URL

from eshop.contracts.services import SERVICES
from gateway.app_keys import CACHED_READS, HEALTH, HUB, ORDER_WAITER, UPSTREAM
from gateway.cache import MemoryStore
from gateway.feed import frames
from tests.support.fake_services import FakeServices

pytest_plugins = ["tests.support.gateway"]

Client = TestClient[web.Request, web.Application]

ORDERS = "/api/v1/orders"
ACCOUNTS = "/api/v1/accounts"
ME = f"{ACCOUNTS}/me"
TOP_UPS = f"{ME}/top-ups"
NO_ID = "01a20499-b516-70c7-84d1-48eb107a5d12"


async def problem(response: aiohttp.ClientResponse, status: int, code: str) -> dict[str, Any]:
    assert (response.status, response.content_type) == (status, "application/problem+json")
    document: dict[str, Any] = await response.json()
    assert document["type"] == f"/problems/{code}"
    assert (document["status"], document["code"]) == (status, code)
    assert document["title"]
    assert document["detail"]
    if status != 401:
        assert len(document["trace_id"]) == 32
    return document


async def placed(client: Client, amount_minor: int = 5, **more: Any) -> dict[str, Any]:
    response = await client.post(ORDERS, json={"amount_minor": amount_minor, **more})
    assert response.status == 201
    order: dict[str, Any] = await response.json()
    return order


async def test_an_order_is_placed_and_shown(client: Client, services: FakeServices) -> None:
    item = {"sku": "A", "name": "Tea", "quantity": 2, "unit_price_minor": 3}
    response = await client.post(
        ORDERS, json={"amount_minor": 6, "description": "für dich", "items": [item], "currency": "EUR"}
    )
    assert response.status == 201
    order = await response.json()
    assert response.headers["Location"] == f"{ORDERS}/{order['order_id']}"
    shown = await (await client.get(response.headers["Location"])).json()
    assert shown == order
    assert {
        key: order[key] for key in ("status", "reason", "amount_minor", "currency", "description", "version")
    } == {
        "status": "NEW",
        "reason": None,
        "amount_minor": 6,
        "currency": "EUR",
        "description": "für dich",
        "version": 1,
    }
    assert order["items"] == [item]
    assert order["created_at"].endswith("Z")


async def test_the_shops_currency_is_the_default(client: Client, services: FakeServices) -> None:
    assert (await placed(client))["currency"] == "USD"


async def test_who_asks_goes_with_the_call(client: Client, services: FakeServices) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    response = await client.post(
        ORDERS,
        json={"amount_minor": 5},
        headers={"traceparent": trace, "X-Request-Id": "r-1", "Idempotency-Key": '"k"'},
    )
    assert response.headers["X-Request-Id"] == "r-1"
    context = services.does.last("CreateOrders").orders[0].context
    assert (context.user_id, context.correlation_id, context.idempotency_key) == ("ann", "r-1", "k")
    assert context.traceparent.split("-")[1] == trace.split("-")[1]
    assert len(context.fingerprint) == 32


@pytest.mark.parametrize(
    ("method", "path"), [("GET", ORDERS), ("POST", ORDERS), ("GET", ME), ("GET", "/api/v1/ws")]
)
async def test_nobody_gets_the_same_answer_always(client: Client, method: str, path: str) -> None:
    answers = set()
    for name in ("", "a b", "a,b", "x" * 129):
        response = await client.request(method, path, headers={"X-User-Id": name})
        await problem(response, 401, "unauthenticated")
        answers.add(await response.text())
    assert len(answers) == 1


async def test_unknown_routes_and_methods_are_problems(client: Client) -> None:
    for path in (
        "/nope",
        "/api/v1/nope",
        "/api/v1/orders/",
        f"{ORDERS}/{NO_ID}/events",
        "/docs/nope.js",
        "/problems/nope",
    ):
        await problem(await client.get(path), 404, "not-found")
    response = await client.delete(ORDERS)
    await problem(response, 405, "method-not-allowed")
    assert set(response.headers["Allow"].split(",")) == {"GET", "HEAD", "POST"}


@pytest.mark.parametrize("path", [ORDERS, ACCOUNTS, TOP_UPS])
@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"", {}, 400, "malformed-body"),
        (b"nonsense", {}, 400, "malformed-body"),
        (b"[]", {}, 400, "malformed-body"),
        (b'{"amount_minor": 5, "amount_minor": 5}', {}, 400, "malformed-body"),
        (b'{"amount_minor": NaN}', {}, 400, "malformed-body"),
        (b'{"amount_minor": 5} x', {}, 400, "malformed-body"),
        (b'{"a":' * 1000 + b"1" + b"}" * 1000, {}, 400, "malformed-body"),
        (b" " * 65_537, {}, 413, "body-too-large"),
        (b"{}", {"Content-Type": "text/plain"}, 415, "unsupported-media-type"),
        (b"{}", {"Content-Type": "application/json; charset=utf-16"}, 415, "unsupported-media-type"),
        (b"{}", {"Content-Encoding": "br"}, 415, "unsupported-media-type"),
        (gzip.compress(b" " * 10_000_000), {"Content-Encoding": "gzip"}, 415, "unsupported-media-type"),
        (b'{"status": "FINISHED"}', {}, 422, "invalid"),
        (b'{"user_id": "bob"}', {}, 422, "invalid"),
        (b"{}", {"Idempotency-Key": ""}, 400, "bad-idempotency-key"),
        (b"{}", {"Idempotency-Key": "x" * 256}, 400, "bad-idempotency-key"),
    ],
)
async def test_bad_input_reaches_no_service(
    client: Client,
    services: FakeServices,
    path: str,
    body: bytes,
    headers: dict[str, str],
    status: int,
    code: str,
) -> None:
    response = await client.post(path, data=body, headers={"Content-Type": "application/json", **headers})
    await problem(response, status, code)
    assert services.does.asked == []


async def test_a_body_without_end_is_cut_off(client: Client, services: FakeServices) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 4096

    async with asyncio.timeout(20):
        try:
            response = await client.post(ORDERS, data=endless(), headers={"Content-Type": "application/json"})
            await problem(response, 413, "body-too-large")
        except aiohttp.ClientOSError:
            pass  # the answer was on its way when the connection was cut
    assert services.does.asked == []


async def test_a_body_that_never_comes_is_not_waited_for_for_ever(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.http.bodies.BODY_SECONDS_MAX", 0.05)

    async def silent() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    response = await client.post(ORDERS, data=silent(), headers={"Content-Type": "application/json"})
    await problem(response, 408, "request-timeout")


async def test_an_amount_out_of_bounds_is_pointed_at(client: Client, services: FakeServices) -> None:
    response = await client.post(ORDERS, json={"amount_minor": 2**31})
    document = await problem(response, 422, "invalid")
    assert [error["pointer"] for error in document["errors"]] == ["/amount_minor"]
    assert all(error["message"] for error in document["errors"])
    assert services.does.asked == []


async def test_another_users_order_is_the_same_as_none(client: Client, services: FakeServices) -> None:
    theirs = services.orders.place("bob", 5).order_id
    answers = set()
    for order_id in (theirs, NO_ID, "1", "' OR 1=1 --", "..%2F..", "%00", "x" * 4000, NO_ID.upper()):
        for response in (
            await client.get(URL(f"{ORDERS}/{order_id}", encoded="%" in order_id)),
            await client.post(URL(f"{ORDERS}/{order_id}/cancel", encoded="%" in order_id)),
        ):
            document = await problem(response, 404, "not-found")
            del document["trace_id"]
            answers.add(json.dumps(document))
    assert len(answers) == 1


async def test_a_page_says_where_the_next_one_is(client: Client, services: FakeServices) -> None:
    ids = [services.orders.place("ann", amount).order_id for amount in range(1, 6)]
    services.orders.place("bob", 9)
    seen: list[str] = []
    target: str | URL = f"{ORDERS}?limit=2&status=NEW"
    while True:
        response = await client.get(target)
        page = await response.json()
        assert response.status == 200
        seen += [order["order_id"] for order in page["items"]]
        if page["next_cursor"] is None:
            assert "Link" not in response.headers
            break
        link = response.links["next"]["url"]
        assert isinstance(link, URL)
        assert (link.query["limit"], link.query["status"], link.query["cursor"]) == (
            "2",
            "NEW",
            page["next_cursor"],
        )
        target = link.path_qs
    assert seen == ids[::-1]
    assert "Age" not in response.headers


async def test_a_bad_query_is_refused(client: Client, services: FakeServices) -> None:
    await problem(await client.get(f"{ORDERS}?cursor=nonsense"), 400, "bad-cursor")
    await problem(await client.get(f"{ORDERS}?limit=0"), 400, "bad-query")
    await problem(await client.get(f"{ORDERS}/{NO_ID}?wait=31"), 400, "bad-query")
    assert services.does.asked == []


async def test_filters_reach_the_service(client: Client, services: FakeServices) -> None:
    await client.get(
        ORDERS,
        params={"created_after": "2026-01-01T00:00:00Z", "created_before": "2026-02-01T00:00:00+01:00"},
    )
    asked = services.does.last("ListOrders")
    assert asked.created_after.ToJsonString() == "2026-01-01T00:00:00Z"
    assert asked.created_before.ToJsonString() == "2026-01-31T23:00:00Z"


async def test_a_copy_says_its_age_and_a_reader_who_has_it_gets_304(
    client: Client, services: FakeServices
) -> None:
    order_id = services.orders.place("ann", 5).order_id
    fresh, copy = [await client.get(f"{ORDERS}/{order_id}") for _ in range(2)]
    assert ("Age" in fresh.headers, copy.headers["Age"]) == (False, "0")
    assert fresh.headers["ETag"] == copy.headers["ETag"] == '"1"'
    assert services.does.count("GetOrder") == 1
    known = await client.get(f"{ORDERS}/{order_id}", headers={"If-None-Match": '"1"'})
    assert (known.status, known.headers["ETag"], await known.read()) == (304, '"1"', b"")


async def test_a_readers_etag_is_a_floor(client: Client, services: FakeServices) -> None:
    order_id = services.orders.place("ann", 5).order_id
    await client.get(f"{ORDERS}/{order_id}")
    services.orders.move(order_id, "FINISHED")
    response = await client.get(f"{ORDERS}/{order_id}", headers={"If-None-Match": '"2"'})
    assert response.status == 304
    assert (await (await client.get(f"{ORDERS}/{order_id}")).json())["status"] == "FINISHED"


async def test_an_event_keeps_a_reader_from_older_copies(client: Client, services: FakeServices) -> None:
    order_id = services.orders.place("ann", 5).order_id
    await client.get(f"{ORDERS}/{order_id}")
    frame = frames.of_order_history(services.orders.move(order_id, "FINISHED"))
    assert client.app is not None
    client.app[HUB].dispatch("ann", frame)
    assert (await (await client.get(f"{ORDERS}/{order_id}")).json())["status"] == "FINISHED"


async def test_without_a_cache_everything_is_served(
    client: Client, services: FakeServices, store: MemoryStore
) -> None:
    store.down = True
    order = await placed(client)
    for _ in range(5):
        response = await client.get(f"{ORDERS}/{order['order_id']}")
        assert (response.status, "Age" in response.headers) == (200, False)
    assert services.does.count("GetOrder") == 5
    metrics = await (await client.get("/metrics")).text()
    assert 'gateway_cache_reads_total{outcome="bypass"} 5.0' in metrics


async def test_an_account_is_opened_filled_and_shown(client: Client, services: FakeServices) -> None:
    await problem(await client.get(ME), 404, "no-account")
    await problem(await client.post(TOP_UPS, json={"amount_minor": 5}), 404, "no-account")
    opened = await client.post(ACCOUNTS, json={})
    assert (opened.status, opened.headers["Location"]) == (201, ME)
    assert await opened.json() == {"balance_minor": 0, "currency": "USD", "version": 1}
    await problem(await client.post(ACCOUNTS, json={}), 409, "account-exists")
    filled = await client.post(TOP_UPS, json={"amount_minor": 70, "reference": "r"})
    assert (filled.status, await filled.json()) == (
        201,
        {"balance_minor": 70, "currency": "USD", "version": 2},
    )
    await problem(
        await client.post(TOP_UPS, json={"amount_minor": 70, "reference": "r"}), 409, "reference-used"
    )
    bob = {"X-User-Id": "bob"}
    await client.post(ACCOUNTS, json={}, headers=bob)
    theirs = await client.post(TOP_UPS, json={"amount_minor": 70, "reference": "r"}, headers=bob)
    assert theirs.status == 201
    shown = await client.get(ME)
    assert (shown.headers["ETag"], (await shown.json())["balance_minor"]) == ('"2"', 70)
    assert (await client.get(ME, headers={"If-None-Match": '"2"'})).status == 304


async def test_a_repeated_request_is_answered_as_the_first_and_says_so(client: Client) -> None:
    key = {"Idempotency-Key": "k"}
    first = await client.post(
        ORDERS,
        data=b'{"amount_minor":5,"currency":"USD"}',
        headers={**key, "Content-Type": "application/json"},
    )
    again = await client.post(ORDERS, json={"currency": "USD", "amount_minor": 5}, headers=key)
    assert "Idempotency-Replayed" not in first.headers
    assert (again.status, again.headers["Idempotency-Replayed"]) == (201, "true")
    assert await again.read() == await first.read()
    assert again.headers["Location"] == first.headers["Location"]
    await problem(
        await client.post(ORDERS, json={"amount_minor": 6}, headers=key), 422, "idempotency-key-reused"
    )
    opened = [await client.post(ACCOUNTS, json={}, headers=key) for _ in range(2)]
    assert [one.status for one in opened] == [201, 201]
    assert opened[1].headers["Idempotency-Replayed"] == "true"


@pytest.mark.parametrize(
    ("refusal", "status", "code"),
    [
        ("idempotency-in-progress", 409, "idempotency-in-progress"),
        ("currency-mismatch", 409, "currency-mismatch"),
        ("account-not-empty", 409, "account-not-empty"),
        ("account-in-use", 409, "account-in-use"),
        ("balance-too-large", 422, "balance-too-large"),
        ("invalid-order", 422, "invalid-order"),
        ("something-new", 409, "conflict"),
    ],
)
async def test_a_services_refusal_is_a_problem(
    client: Client, services: FakeServices, refusal: str, status: int, code: str
) -> None:
    services.orders.refuse[7] = refusal
    response = await client.post(ORDERS, json={"amount_minor": 7})
    await problem(response, status, code)
    assert ("Retry-After" in response.headers) == (refusal == "idempotency-in-progress")


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (grpc.StatusCode.UNAVAILABLE, 503, "unavailable"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 503, "unavailable"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, 504, "slow"),
        (grpc.StatusCode.INVALID_ARGUMENT, 422, "invalid"),
        (grpc.StatusCode.INTERNAL, 503, "unavailable"),
        (grpc.StatusCode.UNAUTHENTICATED, 503, "unavailable"),
    ],
)
async def test_a_failing_service_is_a_problem_never_a_page(
    client: Client,
    services: FakeServices,
    failure: grpc.StatusCode,
    status: int,
    code: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.breaker.Breaker._open", lambda _self, _now: None)  # each call is made
    methods = ("CreateOrders", "GetOrder", "ListOrders", "CancelOrder", "OpenAccount", "TopUp", "GetAccount")
    services.does.fail = dict.fromkeys((*methods, "ListTransfers"), failure)
    responses = [
        await client.post(ORDERS, json={"amount_minor": 5}),
        await client.get(f"{ORDERS}/{NO_ID}"),
        await client.get(ORDERS),
        await client.post(f"{ORDERS}/{NO_ID}/cancel"),
        await client.post(ACCOUNTS, json={}),
        await client.post(TOP_UPS, json={"amount_minor": 5}),
        await client.get(ME),
        await client.get(f"{ME}/transfers"),
        await client.delete(ME),
    ]
    for response in responses:
        await problem(response, status, code)
        assert ("Retry-After" in response.headers) == (status >= 500)


async def test_a_service_that_is_gone_is_refused_at_once_and_found_again(
    client: Client, services: FakeServices
) -> None:
    await services.stop()
    async with asyncio.timeout(5):
        await problem(await client.get(ORDERS), 503, "unavailable")
        await problem(await client.get(ORDERS), 503, "unavailable")
    await services.start()
    async with asyncio.timeout(10):
        while (await client.get(ORDERS)).status != 200:
            await asyncio.sleep(0.05)


async def test_a_slow_service_is_given_up(
    client: Client, services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    services.does.hold["GetOrder"] = asyncio.Event()
    upstream = "gateway.services.upstream.Upstream.call"
    monkeypatch.setattr(f"{upstream}.__defaults__", (0.1,))
    await problem(await client.get(f"{ORDERS}/{NO_ID}"), 504, "slow")
    services.does.hold["GetOrder"].set()


async def test_a_service_that_does_not_answer_costs_few_callers_their_time(
    client: Client, services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    services.does.hold["GetAccount"] = asyncio.Event()
    monkeypatch.setattr("gateway.services.upstream.Upstream.call.__defaults__", (0.2,))
    for _ in range(3):
        await problem(await client.get(ME), 504, "slow")
    asked = services.does.count("GetAccount")
    for refused in [await client.get(ME) for _ in range(5)]:
        await problem(refused, 503, "unavailable")
        assert 1 <= int(refused.headers["Retry-After"]) <= 3
    assert services.does.count("GetAccount") == asked == 3, "a refused call is not made"
    assert (await client.get(ORDERS)).status == 200, "the other service has a circuit of its own"
    metrics = await (await client.get("/metrics")).text()
    assert 'gateway_circuit_open{service="payments"} 1.0' in metrics
    assert 'gateway_circuit_open{service="orders"} 0.0' in metrics
    services.does.hold["GetAccount"].set()
    async with asyncio.timeout(20):
        while (await client.get(ME)).status != 404:
            await asyncio.sleep(0.05)
    assert 'gateway_circuit_open{service="payments"} 0.0' in await (await client.get("/metrics")).text()


async def test_refusals_of_a_service_open_no_circuit(client: Client, services: FakeServices) -> None:
    for _ in range(10):
        await problem(await client.get(f"{ORDERS}/{NO_ID}"), 404, "not-found")
        await asyncio.sleep(0.02)
    assert services.does.count("GetOrder") == 10


async def test_creates_in_flight_go_together_and_each_is_answered(
    client: Client, services: FakeServices
) -> None:
    gate = services.does.hold["CreateOrders"] = asyncio.Event()
    services.orders.refuse[13] = "currency-mismatch"

    async def one(number: int) -> tuple[int, dict[str, Any]]:
        response = await client.post(
            ORDERS, json={"amount_minor": number}, headers={"X-User-Id": f"user-{number}"}
        )
        return response.status, await response.json()

    asked = [asyncio.create_task(one(number)) for number in range(1, 41)]
    assert client.app is not None
    while sum(len(request.orders) for _, request in services.does.asked) < 2:
        await asyncio.sleep(0.01)
    gate.set()
    answers = await asyncio.gather(*asked)
    assert services.does.count("CreateOrders") < 40
    for number, (status, document) in enumerate(answers, 1):
        if number == 13:
            assert (status, document["code"]) == (409, "currency-mismatch")
        else:
            assert (status, document["amount_minor"]) == (201, number)


async def test_a_cancellation_is_accepted_and_one_that_is_done_is_said(
    client: Client, services: FakeServices
) -> None:
    order = await placed(client)
    path = f"{ORDERS}/{order['order_id']}/cancel"
    response = await client.post(path)
    assert (response.status, (await response.json())["status"]) == (202, "NEW")
    services.orders.move(order["order_id"], "CANCELLED", "user")
    for body in (None, b"{}"):
        response = await client.post(path, data=body, headers={"Content-Type": "application/json"})
        assert response.status == 200
        assert (await response.json())["reason"] == "user"
    await problem(await client.post(path, json={"reason": "x"}), 422, "invalid")
    await problem(await client.post(path, json=[]), 400, "malformed-body")


async def test_waiting_for_an_outcome_ends_with_its_event(client: Client, services: FakeServices) -> None:
    order_id = services.orders.place("ann", 5).order_id
    asked = services.does.arrived.setdefault("GetOrder", asyncio.Event())
    waiting = asyncio.create_task(client.get(f"{ORDERS}/{order_id}?wait=30"))
    await asked.wait()
    frame = frames.of_order_history(services.orders.move(order_id, "FINISHED"))
    assert client.app is not None
    client.app[HUB].dispatch("ann", frame)
    response = await waiting
    assert (response.headers["ETag"], (await response.json())["status"]) == ('"2"', "FINISHED")


async def test_no_answer_about_an_order_is_older_than_what_the_feed_has_shown(
    client: Client, services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = services.orders.place("ann", 5).order_id
    assert client.app is not None
    reads, upstream = client.app[CACHED_READS], client.app[UPSTREAM]
    frame = frames.of_order_history(services.orders.feeds["ann"][0])
    real = upstream.call

    async def overtaken(name: str, method: Any, request: Any) -> Any:
        """Hold the first reply back until the order has moved and its feed has shown it."""
        reply = await real(name, method, request)
        monkeypatch.undo()
        services.orders.move(order_id, "NEW")
        reads.show_frame("ann", replace(frame, version=services.orders.orders[order_id].version))
        return reply

    for asked in (f"/{order_id}?wait=0", f"/{order_id}?wait=1", ""):
        monkeypatch.setattr(upstream, "call", overtaken)
        document = await (await client.get(ORDERS + asked)).json()
        shown = document if asked else document["items"][0]
        assert shown["version"] == services.orders.orders[order_id].version, asked
    monkeypatch.setattr(upstream, "call", overtaken)
    cancelling = await (await client.post(f"{ORDERS}/{order_id}/cancel")).json()
    assert cancelling["version"] == services.orders.orders[order_id].version


async def test_a_preferred_wait_answers_202_when_it_ends_first(client: Client) -> None:
    response = await client.post(ORDERS, json={"amount_minor": 5}, headers={"Prefer": "wait=1"})
    assert (response.status, (await response.json())["status"]) == (202, "NEW")
    assert (response.headers["Preference-Applied"], "Location" in response.headers) == ("wait=1", True)


async def test_a_preferred_wait_answers_the_outcome(client: Client, services: FakeServices) -> None:
    assert client.app is not None
    client.app[ORDER_WAITER].attached = True
    created = services.does.arrived.setdefault("CreateOrders", asyncio.Event())
    waiting = asyncio.create_task(
        client.post(ORDERS, json={"amount_minor": 5}, headers={"Prefer": "wait=30", "Idempotency-Key": "k"})
    )
    await created.wait()
    while not services.orders.orders:
        await asyncio.sleep(0.01)
    (order_id,) = services.orders.orders
    frame = frames.of_order_history(services.orders.move(order_id, "CANCELLED", "insufficient_funds"))
    client.app[HUB].dispatch("ann", frame)
    response = await waiting
    order = await response.json()
    assert (response.status, order["status"], order["reason"]) == (201, "CANCELLED", "insufficient_funds")
    replayed = await client.post(
        ORDERS, json={"amount_minor": 5}, headers={"Prefer": "wait=30", "Idempotency-Key": "k"}
    )
    assert (await replayed.json())["status"] == "CANCELLED"
    assert replayed.headers["Idempotency-Replayed"] == "true"


async def test_health_says_what_is_missing(client: Client, services: FakeServices) -> None:
    live = await client.get("/health/live")
    assert (live.status, await live.json()) == (200, {"status": "live"})
    assert client.app is not None
    await client.app[HEALTH].look()
    without_kafka = {**dict.fromkeys(SERVICES, "ok"), "kafka": "failed: ConnectionError", "redis": "ok"}
    for path, status, word in (("ready", 200, "ready"), ("started", 503, "not started")):
        response = await client.get(f"/health/{path}")
        assert (response.status, await response.json()) == (
            status,
            {"status": word, "checks": without_kafka},
        )
    metrics = await (await client.get("/metrics")).text()
    assert 'gateway_dependency_up{dependency="orders"} 1.0' in metrics
    assert 'gateway_dependency_up{dependency="kafka"} 0.0' in metrics


async def test_a_gateway_that_can_serve_nothing_or_is_leaving_is_not_ready(
    client: Client, services: FakeServices
) -> None:
    assert client.app is not None
    health = client.app[HEALTH]

    async def told() -> tuple[int, str]:
        await health.look()
        response = await client.get("/health/ready")
        return response.status, (await response.json())["status"]

    services.does.fail["payments.FeedHeads"] = grpc.StatusCode.UNAVAILABLE
    assert await told() == (200, "ready")
    services.does.fail["orders.FeedHeads"] = grpc.StatusCode.UNAVAILABLE
    assert await told() == (503, "not ready")
    services.does.fail.clear()
    assert await told() == (200, "ready")
    health.stop()
    assert await told() == (503, "stopping")
    response = await client.get(ORDERS)
    assert (response.status, response.headers["Connection"]) == (200, "close")


async def test_the_page_works_offline_and_says_how_one_is_named(client: Client) -> None:
    page = await (await client.get("/")).text()
    assert "Identity is by header, and nobody checks it" in page
    assert "http://" not in page
    assert "https://" not in page
    for path in ("/pages/shop.js", "/pages/shop.css"):
        assert path in page
        assert (await client.get(path)).status == 200
    await problem(await client.get("/pages/index.py"), 404, "not-found")


async def test_the_log_has_one_line_per_request_without_secrets(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "gateway.access"):
        await client.get(f"{ORDERS}?cursor=secret-cursor", headers={"Idempotency-Key": "secret-key"})
        await client.get("/api/v1/ws?user=secret-user", headers={})
    lines = [record.getMessage() for record in caplog.records if record.name == "gateway.access"]
    assert len(lines) == 2
    assert lines[0].startswith("GET /api/v1/orders 400 ")
    assert "secret" not in "".join(lines)


async def test_a_bug_is_a_problem_without_a_trace_of_the_stack(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("the inside")

    monkeypatch.setattr("gateway.routes.orders._list_orders", broken)
    response = await client.get(ORDERS)
    await problem(response, 500, "internal")
    assert "inside" not in await response.text()
