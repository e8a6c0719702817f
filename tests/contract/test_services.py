"""One suite over the services and over the fakes that stand for them in the gateway's tests.

A fake that drifts from its service would let the gateway's tests pass over a service that does not exist.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from eshop.clients.channel import open_channel
from eshop.contracts.proto import orders_v1_pb2 as orders_pb
from eshop.contracts.proto import payments_v1_pb2 as payments_pb
from eshop.contracts.proto import shared_v1_pb2 as shared
from eshop.contracts.proto.orders_v1_pb2_grpc import OrdersStub, add_OrdersServicer_to_server
from eshop.contracts.proto.payments_v1_pb2_grpc import PaymentsStub, add_PaymentsServicer_to_server
from eshop.rpc import orders as orders_rpc
from eshop.rpc import payments as payments_rpc
from eshop.store.unit_of_work import OrdersUnitOfWork, PaymentsUnitOfWork
from tests.support import fake_services as gateway_fakes
from tests.support import grpc_services as services
from tests.support.builders import migrated_store, new_id
from tests.support.grpc_services import Caller, code_of, served

FINGERPRINT = b"f" * 32


@dataclass(frozen=True)
class Services:
    """Stubs of both services, which are the real ones on Postgres or the fakes."""

    orders: Any
    payments: Any


@pytest.fixture(params=["fake", "real"])
async def both(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Services]:
    """Both services, empty."""
    async with AsyncExitStack() as stack:
        if request.param == "fake":
            monkeypatch.setattr(services, "TOKEN", gateway_fakes.TOKEN)
            fakes = gateway_fakes.FakeServices()
            await fakes.start()
            stack.push_async_callback(fakes.stop)
            channel = await stack.enter_async_context(open_channel(fakes.address))
            yield Services(Caller(OrdersStub(channel)), Caller(PaymentsStub(channel)))
            return
        admin_url = request.getfixturevalue("cluster").postgres_admin_url
        orders = await stack.enter_async_context(migrated_store(admin_url, "orders", OrdersUnitOfWork))
        payments = await stack.enter_async_context(migrated_store(admin_url, "payments", PaymentsUnitOfWork))
        orders_channel = await stack.enter_async_context(
            served(
                orders_rpc.SERVICE_NAME,
                lambda server: add_OrdersServicer_to_server(orders_rpc.OrdersServicer(orders, 60), server),
            )
        )
        payments_channel = await stack.enter_async_context(
            served(
                payments_rpc.SERVICE_NAME,
                lambda server: add_PaymentsServicer_to_server(
                    payments_rpc.PaymentsServicer(payments), server
                ),
            )
        )
        yield Services(Caller(OrdersStub(orders_channel)), Caller(PaymentsStub(payments_channel)))


def context(user_id: str = "ann", key: str = "", fingerprint: bytes = FINGERPRINT) -> shared.RequestContext:
    """Return the context of a request, with an idempotency key or without one."""
    return shared.RequestContext(
        user_id=user_id, idempotency_key=key, fingerprint=fingerprint if key else b""
    )


async def place(
    both: Services, user_id: str = "ann", *, key: str = "", fingerprint: bytes = FINGERPRINT, **fields: Any
) -> orders_pb.CreateOrderResult:
    """Place one order, by default of 5 USD."""
    command = orders_pb.CreateOrder(
        context=context(user_id, key, fingerprint), **{"amount_minor": 5, "currency": "USD", **fields}
    )
    reply = await both.orders.CreateOrders(orders_pb.CreateOrdersRequest(orders=[command]))
    (result,) = reply.results
    return result  # type: ignore[no-any-return]


async def listed(both: Services, user_id: str = "ann", **fields: Any) -> orders_pb.ListOrdersReply:
    """Return a page of a user's orders."""
    request = orders_pb.ListOrdersRequest(user_id=user_id, **{"limit": 10, **fields})
    return await both.orders.ListOrders(request)  # type: ignore[no-any-return]


async def opened(both: Services, user_id: str = "ann", key: str = "", currency: str = "USD") -> Any:
    """Open an account."""
    request = payments_pb.OpenAccountRequest(context=context(user_id, key), currency=currency)
    return await both.payments.OpenAccount(request)


async def topped_up(both: Services, user_id: str = "ann", key: str = "", **fields: Any) -> Any:
    """Top up by 100, unless the fields say otherwise."""
    request = payments_pb.TopUpRequest(context=context(user_id, key), **{"amount_minor": 100, **fields})
    return await both.payments.TopUp(request)


async def closed(both: Services, user_id: str = "ann") -> Any:
    """Close an account."""
    return await both.payments.CloseAccount(payments_pb.CloseAccountRequest(context=context(user_id)))


def stamp(seconds: int) -> Timestamp:
    """Return a time as a protobuf timestamp."""
    return Timestamp(seconds=seconds)


# Orders


async def test_placed_order_is_new_and_is_found(both: Services) -> None:
    order = (await place(both, description="a lamp")).order
    assert (order.status, order.version, order.amount_minor, order.description) == ("NEW", 1, 5, "a lamp")
    found = await both.orders.GetOrder(orders_pb.GetOrderRequest(user_id="ann", order_id=order.order_id))
    assert found == order


async def test_order_of_another_user_is_not_found(both: Services) -> None:
    order = (await place(both)).order
    for user_id, order_id in (("bob", order.order_id), ("ann", new_id())):
        call = both.orders.GetOrder(orders_pb.GetOrderRequest(user_id=user_id, order_id=order_id))
        assert await code_of(call) is grpc.StatusCode.NOT_FOUND


async def test_items_are_kept(both: Services) -> None:
    item = orders_pb.Item(sku="lamp", name="Lamp", quantity=1, unit_price_minor=5)
    assert list((await place(both, items=[item])).order.items) == [item]


async def test_repeated_key_is_the_same_order(both: Services) -> None:
    first, again = await place(both, key="k"), await place(both, key="k")
    assert (first.replayed, again.replayed) == (False, True)
    assert again.order == first.order
    assert len((await listed(both)).orders) == 1


async def test_key_of_another_request_is_refused(both: Services) -> None:
    await place(both, key="k")
    assert (await place(both, key="k", fingerprint=b"other")).refusal.code == "idempotency-key-reused"


async def test_key_belongs_to_its_user(both: Services) -> None:
    ann, bob = await place(both, "ann", key="k"), await place(both, "bob", key="k")
    assert ann.order.order_id != bob.order.order_id


async def test_results_are_in_the_order_of_the_requests(both: Services) -> None:
    commands = [
        orders_pb.CreateOrder(context=context(), amount_minor=amount, currency="USD") for amount in (1, 2, 3)
    ]
    reply = await both.orders.CreateOrders(orders_pb.CreateOrdersRequest(orders=commands))
    assert [result.order.amount_minor for result in reply.results] == [1, 2, 3]


async def test_orders_are_listed_newest_first_page_by_page(both: Services) -> None:
    placed = [(await place(both)).order.order_id for _ in range(5)]
    seen: list[str] = []
    before = 0
    while True:
        page = await listed(both, limit=2, before_feed_number=before)
        seen += [order.order_id for order in page.orders]
        before = page.next_feed_number
        if not before:
            break
    assert seen == placed[::-1]


async def test_list_has_only_the_users_own_orders(both: Services) -> None:
    await place(both, "bob")
    assert list((await listed(both, "ann")).orders) == []


async def test_list_is_filtered_by_status(both: Services) -> None:
    await place(both)
    assert len((await listed(both, status="NEW")).orders) == 1
    assert len((await listed(both, status="FINISHED")).orders) == 0


async def test_list_is_filtered_by_time(both: Services) -> None:
    at = (await place(both)).order.created_at.seconds
    assert len((await listed(both, created_after=stamp(at - 5))).orders) == 1
    assert len((await listed(both, created_after=stamp(at + 5))).orders) == 0
    assert len((await listed(both, created_before=stamp(at + 5))).orders) == 1
    assert len((await listed(both, created_before=stamp(at - 5))).orders) == 0


async def test_requested_cancellation_leaves_the_order_as_it_is(both: Services) -> None:
    order = (await place(both)).order
    request = orders_pb.CancelOrderRequest(context=context(), order_id=order.order_id)
    reply = await both.orders.CancelOrder(request)
    assert (reply.order.order_id, reply.order.status) == (order.order_id, "NEW")


async def test_cancellation_of_an_unknown_order_is_not_found(both: Services) -> None:
    order = (await place(both)).order
    for user_id, order_id in (("bob", order.order_id), ("ann", new_id())):
        request = orders_pb.CancelOrderRequest(context=context(user_id), order_id=order_id)
        assert await code_of(both.orders.CancelOrder(request)) is grpc.StatusCode.NOT_FOUND


async def test_feed_of_orders_has_every_change_in_order(both: Services) -> None:
    placed = [(await place(both)).order.order_id for _ in range(3)]
    reply = await both.orders.ReadFeed(shared.ReadFeedRequest(user_id="ann", after_feed_number=1, limit=10))
    assert [(frame.feed_number, frame.order_id) for frame in reply.frames] == [(2, placed[1]), (3, placed[2])]
    assert reply.head_feed_number == 3


async def test_heads_of_orders_are_in_the_order_of_the_users(both: Services) -> None:
    await place(both, "ann")
    await place(both, "ann")
    await place(both, "bob")
    reply = await both.orders.FeedHeads(shared.FeedHeadsRequest(user_ids=["bob", "nobody", "ann"]))
    assert list(reply.head_feed_numbers) == [1, 0, 2]


# Payments


async def test_opened_account_is_empty_and_is_found(both: Services) -> None:
    account = (await opened(both)).account
    assert (account.balance_minor, account.currency, account.version) == (0, "USD", 1)
    assert await both.payments.GetAccount(payments_pb.GetAccountRequest(user_id="ann")) == account


async def test_account_that_was_never_opened_is_not_found(both: Services) -> None:
    call = both.payments.GetAccount(payments_pb.GetAccountRequest(user_id="ann"))
    assert await code_of(call) is grpc.StatusCode.NOT_FOUND


async def test_second_account_is_refused(both: Services) -> None:
    await opened(both)
    assert (await opened(both)).refusal.code == "account-exists"


async def test_top_up_adds_to_the_balance(both: Services) -> None:
    await opened(both)
    account = (await topped_up(both)).account
    assert (account.balance_minor, account.version) == (100, 2)


async def test_top_up_without_an_account_is_refused(both: Services) -> None:
    assert (await topped_up(both)).refusal.code == "no-account"


async def test_repeated_top_up_has_no_second_effect(both: Services) -> None:
    await opened(both)
    first, again = await topped_up(both, key="k"), await topped_up(both, key="k")
    assert (first.replayed, again.replayed) == (False, True)
    assert again.account == first.account
    found = await both.payments.GetAccount(payments_pb.GetAccountRequest(user_id="ann"))
    assert found.balance_minor == 100


async def test_key_of_another_top_up_is_refused(both: Services) -> None:
    await opened(both)
    await topped_up(both, key="k")
    request = payments_pb.TopUpRequest(context=context(key="k", fingerprint=b"other"), amount_minor=7)
    assert (await both.payments.TopUp(request)).refusal.code == "idempotency-key-reused"


async def test_reference_is_unique_per_user(both: Services) -> None:
    await opened(both, "ann")
    await opened(both, "bob")
    assert (await topped_up(both, "ann", reference="r")).WhichOneof("outcome") == "account"
    assert (await topped_up(both, "ann", reference="r")).refusal.code == "reference-used"
    assert (await topped_up(both, "bob", reference="r")).WhichOneof("outcome") == "account"


async def test_account_with_money_is_not_closed(both: Services) -> None:
    await opened(both)
    await topped_up(both)
    assert (await closed(both)).refusal.code == "account-not-empty"


async def test_closed_account_is_not_found_and_opens_in_its_currency_only(both: Services) -> None:
    await opened(both)
    assert (await closed(both)).WhichOneof("outcome") == "account"
    call = both.payments.GetAccount(payments_pb.GetAccountRequest(user_id="ann"))
    assert await code_of(call) is grpc.StatusCode.NOT_FOUND
    assert (await opened(both, currency="EUR")).refusal.code == "currency-mismatch"
    assert (await opened(both)).account.version == 3


async def test_statement_is_newest_first_page_by_page(both: Services) -> None:
    await opened(both)
    for amount in (1, 2, 3):
        await topped_up(both, amount_minor=amount, reference=f"r{amount}")
    first = await both.payments.ListTransfers(payments_pb.ListTransfersRequest(user_id="ann", limit=2))
    rest = await both.payments.ListTransfers(
        payments_pb.ListTransfersRequest(user_id="ann", limit=2, before_feed_number=first.next_feed_number)
    )
    legs = [*first.transfers, *rest.transfers]
    assert [(leg.amount_minor, leg.balance_minor, leg.kind) for leg in legs] == [
        (3, 6, "top_up"),
        (2, 3, "top_up"),
        (1, 1, "top_up"),
    ]
    assert rest.next_feed_number == 0


async def test_frozen_account_says_so(both: Services) -> None:
    await opened(both)
    request = payments_pb.SetFrozenRequest(user_id="ann", frozen=True, reason="stolen", operator="eve")
    assert (await both.payments.SetFrozen(request)).account.frozen
    found = await both.payments.GetAccount(payments_pb.GetAccountRequest(user_id="ann"))
    assert found.frozen


async def test_feed_of_the_wallet_has_every_change_in_order(both: Services) -> None:
    await opened(both)
    await topped_up(both)
    reply = await both.payments.ReadFeed(shared.ReadFeedRequest(user_id="ann", after_feed_number=0, limit=10))
    assert [(frame.feed_number, frame.balance_minor) for frame in reply.frames] == [(1, 0), (2, 100)]
    heads = await both.payments.FeedHeads(shared.FeedHeadsRequest(user_ids=["nobody", "ann"]))
    assert (reply.head_feed_number, list(heads.head_feed_numbers)) == (2, [0, 2])
