"""The services over real gRPC on a real Postgres: who gets in, what is refused, what is left behind."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from eshop.clients.channel import PING_AFTER_SECONDS, PONG_SECONDS_MAX, credentials, open_channel
from eshop.cluster.ports import free_port
from eshop.contracts.proto import orders_v1_pb2 as orders_pb
from eshop.contracts.proto import payments_v1_pb2 as payments_pb
from eshop.contracts.proto import shared_v1_pb2 as shared
from eshop.contracts.proto.orders_v1_pb2_grpc import OrdersStub, add_OrdersServicer_to_server
from eshop.contracts.proto.payments_v1_pb2_grpc import PaymentsStub, add_PaymentsServicer_to_server
from eshop.rpc import orders as orders_rpc
from eshop.rpc import payments as payments_rpc
from eshop.store.unit_of_work import OrdersUnitOfWork, PaymentsUnitOfWork, Store
from tests.support.builders import new_id
from tests.support.grpc_services import TOKEN, Caller, code_of, holding, rows, served, until_waiting

NUL = "a\x00b"
INT64 = 2**63 - 1
FINGERPRINT = b"f" * 32
Orders = Store[OrdersUnitOfWork]
Payments = Store[PaymentsUnitOfWork]


@pytest.fixture
async def orders_channel(orders: Orders) -> AsyncIterator[aio.Channel]:
    servicer = orders_rpc.OrdersServicer(orders, 60)
    async with served(
        orders_rpc.SERVICE_NAME, lambda server: add_OrdersServicer_to_server(servicer, server)
    ) as channel:
        yield channel


@pytest.fixture
async def payments_channel(payments: Payments) -> AsyncIterator[aio.Channel]:
    servicer = payments_rpc.PaymentsServicer(payments)
    async with served(
        payments_rpc.SERVICE_NAME, lambda server: add_PaymentsServicer_to_server(servicer, server)
    ) as channel:
        yield channel


@pytest.fixture
def ask_orders(orders_channel: aio.Channel) -> Any:
    return Caller(OrdersStub(orders_channel))


@pytest.fixture
def ask_payments(payments_channel: aio.Channel) -> Any:
    return Caller(PaymentsStub(payments_channel))


def context(user_id: str = "ann", key: str = "", **more: Any) -> shared.RequestContext:
    """Return who asks, under a key or none."""
    fingerprint = more.pop("fingerprint", FINGERPRINT if key else b"")
    return shared.RequestContext(user_id=user_id, idempotency_key=key, fingerprint=fingerprint, **more)


def order(user_id: str = "ann", key: str = "", amount_minor: int = 5, **fields: Any) -> orders_pb.CreateOrder:
    """Return a good request for an order, but for what is given."""
    given = {"context": context(user_id, key), "currency": "USD", **fields}
    return orders_pb.CreateOrder(amount_minor=amount_minor, **given)


async def create(ask_orders: Any, *asked: orders_pb.CreateOrder) -> list[str]:
    """Place orders in one call; return the refusal's code or "order" for each."""
    reply = await ask_orders.CreateOrders(orders_pb.CreateOrdersRequest(orders=asked))
    return [result.refusal.code or result.WhichOneof("outcome") for result in reply.results]


async def top_up(ask_payments: Any, user_id: str = "ann", **fields: Any) -> Any:
    """Top up, by default by 5."""
    given = {"context": context(user_id), "amount_minor": 5, **fields}
    return await ask_payments.TopUp(payments_pb.TopUpRequest(**given))


async def open_account(ask_payments: Any, user_id: str = "ann") -> None:
    """Open an account in USD."""
    asked = payments_pb.OpenAccountRequest(context=context(user_id), currency="USD")
    assert (await ask_payments.OpenAccount(asked)).WhichOneof("outcome") == "account"


@pytest.mark.parametrize("token", [None, "", "wrong", f"Bearer {TOKEN}x", TOKEN, f"bearer {TOKEN}"])
async def test_nothing_is_answered_without_the_token(orders_channel: aio.Channel, token: str | None) -> None:
    metadata = () if token is None else (("authorization", token),)
    stub = OrdersStub(orders_channel)
    asked = orders_pb.GetOrderRequest(user_id="ann", order_id=new_id())
    assert await code_of(stub.GetOrder(asked, metadata=metadata)) is grpc.StatusCode.UNAUTHENTICATED
    listing = reflection_pb2.ServerReflectionRequest(list_services="")
    channel: Any = orders_channel
    reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
    with pytest.raises(aio.AioRpcError) as denied:
        [_ async for _ in reflection(iter([listing]), metadata=metadata)]
    assert denied.value.code() is grpc.StatusCode.UNAUTHENTICATED
    found = [a async for a in reflection(iter([listing]), metadata=credentials(TOKEN))]
    assert orders_rpc.SERVICE_NAME in {s.name for s in found[0].list_services_response.service}


@pytest.mark.parametrize("service", ["", orders_rpc.SERVICE_NAME])
async def test_health_is_served_to_anyone(orders_channel: aio.Channel, service: str) -> None:
    stub: Any = health_pb2_grpc.HealthStub(orders_channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


BAD_ORDERS = {
    "nobody": order(""),
    "long user": order("u" * 129),
    "NUL in the user": order(NUL),
    "NUL in the key": order(key=NUL),
    "long key": order(key="k" * 256),
    "key without fingerprint": order(context=context(key="k", fingerprint=b"")),
    "huge fingerprint": order(context=context(key="k", fingerprint=b"f" * 100_000)),
    "NUL in the correlation id": order(context=context(correlation_id=NUL)),
    "huge correlation id": order(context=context(correlation_id="c" * 2_000_000)),
    "NUL in the traceparent": order(context=context(traceparent=NUL)),
    "huge traceparent": order(context=context(traceparent="t" * 2_000_000)),
    "nothing": order(amount_minor=0),
    "negative": order(amount_minor=-1),
    "too much": order(amount_minor=10**9 + 1),
    "far too much": order(amount_minor=INT64),
    "no currency": order(currency=""),
    "small currency": order(currency="usd"),
    "strange currency": order(currency="ÄÖÜ"),
    "NUL in the description": order(description=NUL),
    "long description": order(description="d" * 501),
    "NUL in an item": order(items=[orders_pb.Item(sku=NUL, quantity=1, unit_price_minor=5)]),
    "wrong sum": order(items=[orders_pb.Item(sku="s", quantity=1, unit_price_minor=4)]),
    "two negatives": order(items=[orders_pb.Item(sku="s", quantity=-1, unit_price_minor=-5)]),
    "huge numbers": order(
        items=[
            orders_pb.Item(sku="s", quantity=INT64, unit_price_minor=INT64),
            orders_pb.Item(sku="s", quantity=INT64, unit_price_minor=-INT64),
            orders_pb.Item(sku="s", quantity=1, unit_price_minor=5),
        ]
    ),
    "too many items": order(
        items=[orders_pb.Item(sku="s" * 900, quantity=1, unit_price_minor=0)] * 60
        + [orders_pb.Item(sku="s", quantity=1, unit_price_minor=5)]
    ),
}


@pytest.mark.parametrize("bad", BAD_ORDERS.values(), ids=BAD_ORDERS.keys())
async def test_bad_order_is_refused_by_itself_and_leaves_no_row(
    ask_orders: Any, orders: Orders, bad: orders_pb.CreateOrder
) -> None:
    assert await create(ask_orders, order("bob"), bad, order("cid")) == ["order", "invalid-order", "order"]
    assert await rows(orders, "orders", "users", "outbox") == [2, 2, 2]


async def test_order_whose_items_a_newer_version_stored_is_read_without_what_it_added(
    ask_orders: Any, orders: Orders
) -> None:
    item = orders_pb.Item(sku="lamp", name="Lamp", quantity=1, unit_price_minor=5)
    reply = await ask_orders.CreateOrders(
        orders_pb.CreateOrdersRequest(orders=[order(amount_minor=5, items=[item])])
    )
    added = "UPDATE orders SET items = jsonb_set(items, '{0,added_later}', '1')"
    await orders.database.run_alone(lambda session: session.run_sql(added))
    placed = reply.results[0].order
    asked = orders_pb.GetOrderRequest(user_id=placed.user_id, order_id=placed.order_id)
    assert list((await ask_orders.GetOrder(asked)).items) == [item]


async def test_order_keeps_any_text_as_it_was(ask_orders: Any) -> None:
    text = "Grüße, 世界 🙂 \\u0000 '%s' \\"
    item = orders_pb.Item(sku=text, name=text, quantity=1, unit_price_minor=5)
    reply = await ask_orders.CreateOrders(
        orders_pb.CreateOrdersRequest(orders=[order("ü🙂", description=text, items=[item])])
    )
    order_id = reply.results[0].order.order_id
    stored = await ask_orders.GetOrder(orders_pb.GetOrderRequest(user_id="ü🙂", order_id=order_id))
    assert (stored.description, list(stored.items)) == (text, [item])


async def test_too_many_orders_in_a_call_are_refused(ask_orders: Any, orders: Orders) -> None:
    asked = orders_pb.CreateOrdersRequest(orders=[order()] * 1_001)
    assert await code_of(ask_orders.CreateOrders(asked)) is grpc.StatusCode.INVALID_ARGUMENT
    assert await rows(orders, "orders", "users") == [0, 0]


@pytest.mark.parametrize(
    "asked",
    [
        orders_pb.ListOrdersRequest(user_id=""),
        orders_pb.ListOrdersRequest(user_id=NUL),
        orders_pb.ListOrdersRequest(user_id="ann", status=NUL),
        orders_pb.ListOrdersRequest(user_id="ann", status="DONE"),
        orders_pb.ListOrdersRequest(user_id="ann", created_after=Timestamp(seconds=INT64)),
        orders_pb.ListOrdersRequest(user_id="ann", created_before=Timestamp(seconds=-INT64)),
        orders_pb.ListOrdersRequest(user_id="ann", created_before=Timestamp(nanos=-1)),
    ],
)
async def test_bad_page_is_invalid(ask_orders: Any, asked: orders_pb.ListOrdersRequest) -> None:
    assert await code_of(ask_orders.ListOrders(asked)) is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("limit", "before", "expected"),
    [(2**31 - 1, 0, 3), (-5, 0, 1), (0, 0, 1), (100, -(2**63), 0), (100, INT64, 3), (100, 2, 1)],
)
async def test_page_is_bounded(ask_orders: Any, limit: int, before: int, expected: int) -> None:
    await create(ask_orders, order(), order(), order(), order("bob"))
    asked = orders_pb.ListOrdersRequest(
        user_id="ann",
        limit=limit,
        before_feed_number=before,
        created_after=Timestamp(seconds=-62_135_596_800),
        created_before=Timestamp(seconds=253_402_300_799),
    )
    assert len((await ask_orders.ListOrders(asked)).orders) == expected


@pytest.mark.parametrize(
    "order_id", ["", "x", NUL, "../orders", "' OR 1=1 --", "0" * 100_000, "\u0661" * 32, new_id()]
)
async def test_order_that_is_not_the_users_is_not_found(ask_orders: Any, order_id: str) -> None:
    asked = orders_pb.GetOrderRequest(user_id="ann", order_id=order_id)
    assert await code_of(ask_orders.GetOrder(asked)) is grpc.StatusCode.NOT_FOUND
    cancel = orders_pb.CancelOrderRequest(context=context(), order_id=order_id)
    assert await code_of(ask_orders.CancelOrder(cancel)) is grpc.StatusCode.NOT_FOUND


async def test_order_of_another_user_is_not_found_and_not_cancelled(ask_orders: Any, orders: Orders) -> None:
    reply = await ask_orders.CreateOrders(orders_pb.CreateOrdersRequest(orders=[order("bob")]))
    order_id = reply.results[0].order.order_id
    for user_id in ("ann", "", NUL):
        asked = orders_pb.GetOrderRequest(user_id=user_id, order_id=order_id)
        assert await code_of(ask_orders.GetOrder(asked)) is grpc.StatusCode.NOT_FOUND
    cancel = orders_pb.CancelOrderRequest(context=context("ann"), order_id=order_id)
    assert await code_of(ask_orders.CancelOrder(cancel)) is grpc.StatusCode.NOT_FOUND
    assert await rows(orders, "outbox", "users") == [1, 1]


@pytest.mark.parametrize(
    "bad",
    [
        context(NUL),
        context(""),
        context(correlation_id=NUL),
        context(traceparent="t" * 200_000),
        context(key=NUL),
    ],
)
async def test_bad_context_is_invalid_everywhere(
    ask_orders: Any, ask_payments: Any, payments: Payments, bad: shared.RequestContext
) -> None:
    for call in (
        ask_orders.CancelOrder(orders_pb.CancelOrderRequest(context=bad, order_id=new_id())),
        ask_payments.OpenAccount(payments_pb.OpenAccountRequest(context=bad, currency="USD")),
        ask_payments.TopUp(payments_pb.TopUpRequest(context=bad, amount_minor=5)),
    ):
        assert await code_of(call) is grpc.StatusCode.INVALID_ARGUMENT
    assert await rows(payments, "wallets", "outbox") == [0, 0]


@pytest.mark.parametrize(
    "fields",
    [
        {"amount_minor": 0},
        {"amount_minor": -INT64},
        {"amount_minor": INT64},
        {"reference": NUL},
        {"reference": "r" * 256},
    ],
)
async def test_bad_top_up_is_invalid(ask_payments: Any, payments: Payments, fields: Any) -> None:
    await open_account(ask_payments)
    assert await code_of(top_up(ask_payments, **fields)) is grpc.StatusCode.INVALID_ARGUMENT
    assert await rows(payments, "transfers", "outbox") == [0, 1]


async def test_bad_feed_requests_are_invalid_and_odd_numbers_harmless(
    ask_orders: Any, ask_payments: Any
) -> None:
    await create(ask_orders, order(), order())
    for ask in (ask_orders, ask_payments):
        for user_id in ("", NUL):
            read = shared.ReadFeedRequest(user_id=user_id)
            assert await code_of(ask.ReadFeed(read)) is grpc.StatusCode.INVALID_ARGUMENT
            heads = shared.FeedHeadsRequest(user_ids=["ann", user_id])
            assert await code_of(ask.FeedHeads(heads)) is grpc.StatusCode.INVALID_ARGUMENT
        assert (await ask.FeedHeads(shared.FeedHeadsRequest())).head_feed_numbers == []
    for after, limit, expected in ((-(2**63), 2**31 - 1, 2), (INT64, -1, 0), (1, 0, 1)):
        asked = shared.ReadFeedRequest(user_id="ann", after_feed_number=after, limit=limit)
        reply = await ask_orders.ReadFeed(asked)
        assert (len(reply.frames), reply.head_feed_number) == (expected, 2)
    heads = shared.FeedHeadsRequest(user_ids=["nobody", "ann", "nobody"])
    assert (await ask_orders.FeedHeads(heads)).head_feed_numbers == [0, 2, 0]


async def test_top_up_without_an_account_leaves_no_row(ask_payments: Any, payments: Payments) -> None:
    assert (await top_up(ask_payments)).refusal.code == "no-account"
    asked = payments_pb.GetAccountRequest(user_id="ann")
    assert await code_of(ask_payments.GetAccount(asked)) is grpc.StatusCode.NOT_FOUND
    assert await rows(payments, "wallets") == [0]


async def test_same_top_up_key_is_answered_again_and_another_body_refused(
    ask_payments: Any, payments: Payments
) -> None:
    await open_account(ask_payments)
    asked: dict[str, Any] = {"context": context(key="k"), "reference": "r"}
    first, second = await asyncio.gather(*(top_up(ask_payments, **asked) for _ in range(2)))
    assert {first.replayed, second.replayed} == {False, True}
    await top_up(ask_payments)
    again = await top_up(ask_payments, **asked)
    assert (again.replayed, again.account) == (True, first.account)
    other = await top_up(ask_payments, context=context(key="k", fingerprint=b"other"))
    assert other.refusal.code == "idempotency-key-reused"
    assert await rows(payments, "transfers") == [2]


async def test_reference_that_another_user_has_or_takes_at_this_moment_is_nobody_elses_business(
    ask_payments: Any, payments: Payments
) -> None:
    for user_id in ("ann", "bob", "eve"):
        await open_account(ask_payments, user_id)
    await top_up(ask_payments, "eve", reference="r")
    taken = (
        "INSERT INTO transfers (transfer_id, kind, user_id, currency, reference)"
        f" VALUES ('{new_id()}', 'top_up', 'bob', 'USD', 'r')"
    )
    async with holding(payments, taken):
        assert (await top_up(ask_payments, reference="r")).account.balance_minor == 5
    assert (await top_up(ask_payments, reference="r")).refusal.code == "reference-used"


async def test_locked_user_is_refused_and_the_others_do_not_wait_for_long(
    ask_orders: Any, orders: Orders
) -> None:
    users = [f"user-{number}" for number in range(16)]
    await create(ask_orders, *(order(user) for user in users))
    async with holding(orders, "SELECT * FROM users WHERE user_id = 'user-11' FOR UPDATE"):
        begun = time.monotonic()
        answers = await create(ask_orders, *(order(user) for user in [*users, "new"]))
        assert time.monotonic() - begun < 2
    expected = ["idempotency-in-progress" if user == "user-11" else "order" for user in users]
    assert answers == [*expected, "order"]
    assert await create(ask_orders, order("user-11")) == ["order"]


async def test_new_user_that_someone_else_is_adding_is_refused_and_the_others_are_served(
    ask_orders: Any, orders: Orders
) -> None:
    async with holding(orders, "INSERT INTO users (user_id) VALUES ('new')"):
        answers = await create(ask_orders, order("ann"), order("new"))
    assert answers == ["order", "idempotency-in-progress"]


async def test_database_that_is_gone_is_unavailable_at_once(ask_orders: Any, orders: Orders) -> None:
    await orders.database.close()
    begun = time.monotonic()
    asked = orders_pb.CreateOrdersRequest(orders=[order()])
    assert await code_of(ask_orders.CreateOrders(asked)) is grpc.StatusCode.UNAVAILABLE
    read = orders_pb.GetOrderRequest(user_id="ann", order_id=new_id())
    assert await code_of(ask_orders.GetOrder(read)) is grpc.StatusCode.UNAVAILABLE
    assert time.monotonic() - begun < 1


async def test_connections_that_the_server_ends_are_unavailable_and_replaced(
    ask_orders: Any, orders: Orders
) -> None:
    read = shared.ReadFeedRequest(user_id="ann")
    end_all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = current_user"
    codes = []
    for _ in range(5):
        with pytest.raises(Exception, match=r"terminating|closed"):
            await orders.database.transact(lambda session: session.run_sql(end_all))
        codes.append(await code_of(ask_orders.ReadFeed(read)))
    assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    assert await code_of(ask_orders.ReadFeed(read)) is grpc.StatusCode.OK


async def test_caller_who_leaves_in_mid_transaction_does_not_undo_it(ask_orders: Any, orders: Orders) -> None:
    async with holding(orders, "LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE"):
        asked = orders_pb.CreateOrdersRequest(orders=[order(key="k")])
        call = ask_orders.CreateOrders(asked)
        waiting = asyncio.ensure_future(call)
        await until_waiting(orders)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    async with asyncio.timeout(10):
        while await rows(orders, "orders", "outbox") != [1, 1]:
            await asyncio.sleep(0.02)
    reply = await ask_orders.CreateOrders(asked)
    assert reply.results[0].replayed


async def test_request_over_the_size_is_refused(ask_orders: Any) -> None:
    asked = orders_pb.CreateOrdersRequest(orders=[order(description="d" * 9_000_000)])
    assert await code_of(ask_orders.CreateOrders(asked)) is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("reason", ["", "  ", NUL, "r" * 100_000])
async def test_operator_without_a_good_reason_does_nothing(
    ask_orders: Any, ask_payments: Any, orders: Orders, payments: Payments, reason: str
) -> None:
    await open_account(ask_payments)
    reply = await ask_orders.CreateOrders(orders_pb.CreateOrdersRequest(orders=[order()]))
    order_id = reply.results[0].order.order_id
    for given in ({"reason": reason, "operator": "me"}, {"reason": "because", "operator": reason}):
        freeze = payments_pb.SetFrozenRequest(user_id="ann", frozen=True, **given)
        assert await code_of(ask_payments.SetFrozen(freeze)) is grpc.StatusCode.INVALID_ARGUMENT
        refund = orders_pb.RefundOrderRequest(order_id=order_id, **given)
        assert await code_of(ask_orders.RefundOrder(refund)) is grpc.StatusCode.INVALID_ARGUMENT
        payment = payments_pb.RefundPaymentRequest(order_id=order_id, **given)
        assert await code_of(ask_payments.RefundPayment(payment)) is grpc.StatusCode.INVALID_ARGUMENT
    assert await rows(payments, "operator_actions", "outbox") == [0, 1]
    assert await rows(orders, "operator_actions", "outbox") == [0, 1]


@pytest.mark.parametrize("order_id", ["", NUL, "x", new_id()])
async def test_operator_cannot_refund_what_is_not_there(
    ask_orders: Any, ask_payments: Any, orders: Orders, payments: Payments, order_id: str
) -> None:
    payment = payments_pb.RefundPaymentRequest(order_id=order_id, reason="because", operator="me")
    assert await code_of(ask_payments.RefundPayment(payment)) is grpc.StatusCode.NOT_FOUND
    assert await rows(payments, "operator_actions", "outbox", "wallets") == [0, 0, 0]
    refund = orders_pb.RefundOrderRequest(order_id=order_id, reason="because", operator="me")
    assert await code_of(ask_orders.RefundOrder(refund)) is grpc.StatusCode.NOT_FOUND
    assert await rows(orders, "operator_actions", "outbox", "users") == [0, 0, 0]


async def test_statement_is_bounded_and_its_user_checked(ask_payments: Any) -> None:
    await open_account(ask_payments)
    for _ in range(3):
        await top_up(ask_payments)
    for user_id in ("", NUL):
        asked = payments_pb.ListTransfersRequest(user_id=user_id)
        assert await code_of(ask_payments.ListTransfers(asked)) is grpc.StatusCode.INVALID_ARGUMENT
    for limit, before, expected in ((2**31 - 1, 0, 3), (-1, 0, 1), (100, -(2**63), 0), (100, INT64, 3)):
        asked = payments_pb.ListTransfersRequest(user_id="ann", limit=limit, before_feed_number=before)
        assert len((await ask_payments.ListTransfers(asked)).transfers) == expected


@pytest.mark.parametrize("user_id", ["nobody", "ann"])
async def test_account_that_is_not_there_or_not_empty_stays_as_it_is(
    ask_payments: Any, payments: Payments, user_id: str
) -> None:
    await open_account(ask_payments)
    await top_up(ask_payments)
    before = await rows(payments, "wallets", "wallet_history", "outbox")
    asked = payments_pb.CloseAccountRequest(context=context(user_id))
    assert (await ask_payments.CloseAccount(asked)).WhichOneof("outcome") == "refusal"
    assert await rows(payments, "wallets", "wallet_history", "outbox") == before


async def test_old_connections_are_renewed_and_no_call_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eshop.rpc.server.CONNECTION_SECONDS_MAX", 0.3)
    peers = set()

    async def answer(request: bytes, context: aio.ServicerContext[bytes, bytes]) -> bytes:
        peers.add(context.peer())
        return request

    def add(server: aio.Server) -> None:
        handlers: dict[str, Any] = {"Answer": grpc.unary_unary_rpc_method_handler(answer)}
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("shop.Test", handlers)])

    async with served("shop.Test", add) as channel:
        call: Any = channel.unary_unary("/shop.Test/Answer")
        async with asyncio.timeout(20):
            while len(peers) < 4:
                assert await call(b"x", metadata=credentials(TOKEN), timeout=5) == b"x"


SERVE = """
import asyncio, sys
import grpc
from eshop.rpc.server import GrpcServer

async def name(request, context):
    return sys.argv[1].encode()

async def main():
    server = GrpcServer(sys.argv[1], "a-token", service_names=[], with_reflection=False)
    handlers = {"Name": grpc.unary_unary_rpc_method_handler(name)}
    server.server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("shop.Test", handlers)])
    await server.start()
    await server.server.wait_for_termination()

asyncio.run(main())
"""


async def test_calls_go_round_a_worker_that_is_frozen() -> None:
    taken: set[int] = set()
    addresses = [f"127.0.0.1:{free_port(taken)}" for _ in range(2)]
    workers = [await asyncio.create_subprocess_exec(sys.executable, "-c", SERVE, one) for one in addresses]
    try:
        async with open_channel(",".join(addresses)) as channel:
            call: Any = channel.unary_unary("/shop.Test/Name")
            met: set[bytes] = set()
            async with asyncio.timeout(30):
                while len(met) < len(addresses):
                    met.add(await call(b"", metadata=credentials(TOKEN), timeout=20, wait_for_ready=True))
            workers[0].send_signal(signal.SIGSTOP)
            # Those that are sent to it end when its connection does.
            bound = PING_AFTER_SECONDS + PONG_SECONDS_MAX + 4
            calls = [call(b"", metadata=credentials(TOKEN), timeout=bound + 8) for _ in range(4)]
            async with asyncio.timeout(bound):
                codes = await asyncio.gather(*(code_of(one) for one in calls))
            assert grpc.StatusCode.UNAVAILABLE in codes
            for _ in range(8):
                assert await call(b"", metadata=credentials(TOKEN), timeout=5) == addresses[1].encode()
    finally:
        for worker in workers:
            worker.send_signal(signal.SIGCONT)
            worker.kill()
            await worker.wait()


@asynccontextmanager
async def serving(address: str) -> AsyncIterator[None]:
    """Run a worker that answers with its address."""
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", SERVE, address)
    try:
        yield
    finally:
        worker.kill()
        await worker.wait()


async def until_met(call: Any, *addresses: str) -> None:
    """Call until exactly these have answered, one after the other."""
    async with asyncio.timeout(30):
        met: list[str] = []
        while set(met[-len(addresses) :]) != set(addresses) or len(met) < len(addresses):
            with suppress(grpc.aio.AioRpcError):
                met.append((await call(b"", metadata=credentials(TOKEN), timeout=5)).decode())


async def test_calls_go_round_several_names_and_those_that_are_there() -> None:
    taken: set[int] = set()
    first, second = (f"localhost:{free_port(taken)}" for _ in range(2))
    async with open_channel(f"{first},{second}") as channel:
        call: Any = channel.unary_unary("/shop.Test/Name")
        async with serving(first):
            await until_met(call, first)
            async with serving(second):
                await until_met(call, first, second)
            await until_met(call, first)
            async with serving(second):
                await until_met(call, first, second)


async def test_an_office_proxy_is_not_asked_about_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "grpc_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    address = f"localhost:{free_port(set())}"
    async with serving(address), open_channel(address) as channel:
        await until_met(channel.unary_unary("/shop.Test/Name"), address)


async def test_several_addresses_may_be_of_ipv6() -> None:
    taken: set[int] = set()
    addresses = [f"[::1]:{free_port(taken)}" for _ in range(2)]
    async with serving(addresses[0]), serving(addresses[1]), open_channel(",".join(addresses)) as channel:
        await until_met(channel.unary_unary("/shop.Test/Name"), *addresses)
