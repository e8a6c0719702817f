# ruff: noqa: N802  gRPC names its methods so
"""The services in memory behind real gRPC, for tests of the gateway."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import grpc
import uuid_utils
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import aio

from eshop.clients.channel import TOKEN_HEADER
from eshop.contracts.proto import orders_v1_pb2 as orders_pb
from eshop.contracts.proto import payments_v1_pb2 as payments_pb
from eshop.contracts.proto import shared_v1_pb2 as shared_pb
from eshop.contracts.proto.orders_v1_pb2_grpc import OrdersServicer
from eshop.contracts.proto.payments_v1_pb2_grpc import PaymentsServicer
from eshop.contracts.services import SERVICES

TOKEN = "the-token"
Context = aio.ServicerContext[Any, Any]


@dataclass
class Behaviour:
    """How calls fare: by method a status to fail with, an event to be held by, what was asked."""

    fail: dict[str, grpc.StatusCode] = field(default_factory=dict)
    hold: dict[str, asyncio.Event] = field(default_factory=dict)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    arrived: dict[str, asyncio.Event] = field(default_factory=dict)

    async def meet(self, method: str, request: Any, context: Context) -> None:
        shown = dict(context.invocation_metadata() or ())[TOKEN_HEADER]
        assert shown == f"Bearer {TOKEN}"
        if list(getattr(request, "user_ids", ())) != ["-"]:  # the gateway's look at its dependencies
            self.asked.append((method, request))
        self.arrived.setdefault(method, asyncio.Event()).set()
        if method in self.hold:
            await self.hold[method].wait()
        if method in self.fail:
            await context.abort(self.fail[method], f"told to fail: {method}")

    def count(self, method: str) -> int:
        return sum(name == method for name, _ in self.asked)

    def last(self, method: str) -> Any:
        return [request for name, request in self.asked if name == method][-1]


class FakeFeed:
    """The feeds of a service's users, in order: all that a service of the catalogue must have."""

    def __init__(self, service: str, behaviour: Behaviour) -> None:
        self.does = behaviour
        self.feeds: dict[str, list[Any]] = {}
        self._service = service
        self._page = import_module(f"eshop.contracts.proto.{service}_v1_pb2").ReadFeedReply

    async def ReadFeed(self, request: shared_pb.ReadFeedRequest, context: Context) -> Any:
        await self.does.meet(f"{self._service}.ReadFeed", request, context)
        feed = self.feeds.get(request.user_id, [])
        frames = feed[request.after_feed_number : request.after_feed_number + request.limit]
        return self._page(frames=frames, head_feed_number=len(feed))

    async def FeedHeads(
        self, request: shared_pb.FeedHeadsRequest, context: Context
    ) -> shared_pb.FeedHeadsReply:
        await self.does.meet(f"{self._service}.FeedHeads", request, context)
        heads = [len(self.feeds.get(user_id, [])) for user_id in request.user_ids]
        return shared_pb.FeedHeadsReply(head_feed_numbers=heads)


class FakeOrders(FakeFeed, OrdersServicer):
    """Orders by id, newest last, with a feed per user."""

    feeds: dict[str, list[orders_pb.OrderFrame]]

    def __init__(self, behaviour: Behaviour) -> None:
        super().__init__("orders", behaviour)
        self.orders: dict[str, orders_pb.Order] = {}
        self.keys: dict[tuple[str, str], tuple[bytes, str]] = {}
        self.refuse: dict[int, str] = {}

    def place(
        self, user_id: str, amount_minor: int, currency: str = "USD", description: str = ""
    ) -> orders_pb.Order:
        order = orders_pb.Order(
            order_id=str(uuid_utils.uuid7()),
            user_id=user_id,
            status="NEW",
            amount_minor=amount_minor,
            currency=currency,
            description=description,
            version=1,
            created_at=_now(),
            updated_at=_now(),
        )
        self.orders[order.order_id] = order
        self._record(order)
        return order

    def move(self, order_id: str, status: str, reason: str = "") -> orders_pb.OrderFrame:
        order = self.orders[order_id]
        order.status, order.reason = status, reason
        order.version += 1
        order.updated_at.GetCurrentTime()
        return self._record(order)

    def _record(self, order: orders_pb.Order) -> orders_pb.OrderFrame:
        feed = self.feeds.setdefault(order.user_id, [])
        feed.append(
            orders_pb.OrderFrame(
                feed_number=len(feed) + 1,
                order_id=order.order_id,
                status=order.status,
                reason=order.reason,
                version=order.version,
                at=order.updated_at,
            )
        )
        return feed[-1]

    async def CreateOrders(
        self, request: orders_pb.CreateOrdersRequest, context: Context
    ) -> orders_pb.CreateOrdersReply:
        await self.does.meet("CreateOrders", request, context)
        return orders_pb.CreateOrdersReply(results=[self._create(order) for order in request.orders])

    def _create(self, asked: orders_pb.CreateOrder) -> orders_pb.CreateOrderResult:
        if code := self.refuse.get(asked.amount_minor):
            return orders_pb.CreateOrderResult(refusal=shared_pb.Refusal(code=code, detail="told to refuse"))
        key = (asked.context.user_id, asked.context.idempotency_key)
        if key[1] and key in self.keys:
            fingerprint, order_id = self.keys[key]
            if fingerprint != asked.context.fingerprint:
                refusal = shared_pb.Refusal(code="idempotency-key-reused", detail="used before")
                return orders_pb.CreateOrderResult(refusal=refusal)
            made = orders_pb.Order()
            made.CopyFrom(self.orders[order_id])
            made.status, made.version, made.reason = "NEW", 1, ""
            return orders_pb.CreateOrderResult(order=made, replayed=True)
        order = self.place(asked.context.user_id, asked.amount_minor, asked.currency, asked.description)
        order.items.extend(asked.items)
        if key[1]:
            self.keys[key] = (asked.context.fingerprint, order.order_id)
        return orders_pb.CreateOrderResult(order=order)

    async def GetOrder(self, request: orders_pb.GetOrderRequest, context: Context) -> orders_pb.Order:
        await self.does.meet("GetOrder", request, context)
        order = self.orders.get(request.order_id)
        if order is None or order.user_id != request.user_id:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such order")
        return order

    async def ListOrders(
        self, request: orders_pb.ListOrdersRequest, context: Context
    ) -> orders_pb.ListOrdersReply:
        await self.does.meet("ListOrders", request, context)
        mine = [order for order in self.orders.values() if order.user_id == request.user_id]
        numbered = list(enumerate(mine, 1))[::-1]
        found = [
            (number, order)
            for number, order in numbered
            if (not request.before_feed_number or number < request.before_feed_number)
            and (not request.status or order.status == request.status)
            and _is_within(request, order)
        ]
        page = found[: request.limit]
        next_feed_number = page[-1][0] if len(found) > request.limit else 0
        return orders_pb.ListOrdersReply(
            orders=[order for _, order in page], next_feed_number=next_feed_number
        )

    async def CancelOrder(
        self, request: orders_pb.CancelOrderRequest, context: Context
    ) -> orders_pb.CancelOrderReply:
        await self.does.meet("CancelOrder", request, context)
        order = self.orders.get(request.order_id)
        if order is None or order.user_id != request.context.user_id:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such order")
        return orders_pb.CancelOrderReply(order=order)

    async def RefundOrder(
        self, request: orders_pb.RefundOrderRequest, context: Context
    ) -> orders_pb.RefundOrderReply:
        await self.does.meet("RefundOrder", request, context)
        order = self.orders.get(request.order_id)
        if order is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such order")
        return orders_pb.RefundOrderReply(order=order, asked=order.status != "CANCELLED")


class FakePayments(FakeFeed, PaymentsServicer):
    """One account per user, with a feed and a statement."""

    feeds: dict[str, list[payments_pb.WalletFrame]]

    def __init__(self, behaviour: Behaviour) -> None:
        super().__init__("payments", behaviour)
        self.accounts: dict[str, payments_pb.Account] = {}
        self.keys: dict[tuple[str, str], tuple[bytes, payments_pb.Account]] = {}
        self.references: set[tuple[str, str]] = set()
        self.closed: dict[str, payments_pb.Account] = {}
        self.transfers: dict[str, list[payments_pb.Transfer]] = {}
        self.decided: dict[str, payments_pb.RefundPaymentReply] = {}

    def move(self, user_id: str, kind: str, by_minor: int, **more: str) -> payments_pb.Account:
        """Change the balance by a transfer."""
        account = self.change(user_id, by_minor)
        leg = payments_pb.Transfer(
            transfer_id=str(uuid_utils.uuid7()),
            kind=kind,
            amount_minor=by_minor,
            balance_minor=account.balance_minor,
            currency=account.currency,
            version=account.version,
            at=_now(),
            **more,
        )
        self.transfers.setdefault(user_id, []).append(leg)
        return account

    def change(self, user_id: str, by_minor: int, currency: str = "USD") -> payments_pb.Account:
        account = self.accounts.setdefault(user_id, payments_pb.Account(user_id=user_id, currency=currency))
        account.balance_minor += by_minor
        account.version += 1
        self.feeds.setdefault(user_id, []).append(
            payments_pb.WalletFrame(
                feed_number=account.version,
                balance_minor=account.balance_minor,
                currency=account.currency,
                version=account.version,
                at=_now(),
            )
        )
        return account

    async def RefundPayment(
        self, request: payments_pb.RefundPaymentRequest, context: Context
    ) -> payments_pb.RefundPaymentReply:
        await self.does.meet("RefundPayment", request, context)
        found = self.decided.get(request.order_id)
        if found is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such payment")
        found.refunded = found.status == "CAPTURED"
        found.status = "REFUNDED" if found.refunded else found.status
        return found

    async def OpenAccount(
        self, request: payments_pb.OpenAccountRequest, context: Context
    ) -> payments_pb.AccountResult:
        await self.does.meet("OpenAccount", request, context)
        user_id = request.context.user_id

        def opened() -> payments_pb.Account | str:
            if user_id in self.accounts:
                return "account-exists"
            closed = self.closed.get(user_id)
            if closed is not None:
                if closed.currency != request.currency:
                    return "currency-mismatch"
                self.accounts[user_id] = self.closed.pop(user_id)
            return self.change(user_id, 0, request.currency)

        return self._once(request.context, opened)

    async def TopUp(self, request: payments_pb.TopUpRequest, context: Context) -> payments_pb.AccountResult:
        await self.does.meet("TopUp", request, context)

        def topped_up() -> payments_pb.Account | str:
            if request.context.user_id not in self.accounts:
                return "no-account"
            used = (request.context.user_id, request.reference)
            if used in self.references:
                return "reference-used"
            if request.reference:
                self.references.add(used)
            return self.move(
                request.context.user_id, "top_up", request.amount_minor, reference=request.reference
            )

        return self._once(request.context, topped_up)

    async def CloseAccount(
        self, request: payments_pb.CloseAccountRequest, context: Context
    ) -> payments_pb.AccountResult:
        await self.does.meet("CloseAccount", request, context)
        user_id = request.context.user_id

        def closed() -> payments_pb.Account | str:
            if user_id not in self.accounts:
                return "no-account"
            if self.accounts[user_id].balance_minor:
                return "account-not-empty"
            self.closed[user_id] = self.change(user_id, 0)
            return self.accounts.pop(user_id)

        return self._once(request.context, closed)

    async def SetFrozen(
        self, request: payments_pb.SetFrozenRequest, context: Context
    ) -> payments_pb.AccountResult:
        await self.does.meet("SetFrozen", request, context)
        if request.user_id not in self.accounts:
            return payments_pb.AccountResult(refusal=shared_pb.Refusal(code="no-account", detail="no"))
        account = self.change(request.user_id, 0)
        account.frozen = request.frozen
        return payments_pb.AccountResult(account=account)

    async def ListTransfers(
        self, request: payments_pb.ListTransfersRequest, context: Context
    ) -> payments_pb.ListTransfersReply:
        await self.does.meet("ListTransfers", request, context)
        found = [
            leg
            for leg in self.transfers.get(request.user_id, [])[::-1]
            if not request.before_feed_number or leg.version < request.before_feed_number
        ]
        page = found[: request.limit]
        next_feed_number = page[-1].version if len(found) > request.limit else 0
        return payments_pb.ListTransfersReply(transfers=page, next_feed_number=next_feed_number)

    def _once(
        self, context: shared_pb.RequestContext, effect: Callable[[], payments_pb.Account | str]
    ) -> payments_pb.AccountResult:
        key = (context.user_id, context.idempotency_key)
        if key[1] and key in self.keys:
            fingerprint, account = self.keys[key]
            if fingerprint == context.fingerprint:
                return payments_pb.AccountResult(account=account, replayed=True)
            outcome: payments_pb.Account | str = "idempotency-key-reused"
        else:
            outcome = effect()
        if isinstance(outcome, str):
            return payments_pb.AccountResult(refusal=shared_pb.Refusal(code=outcome, detail="no"))
        if key[1]:
            account = payments_pb.Account()
            account.CopyFrom(outcome)
            self.keys[key] = context.fingerprint, account
        return payments_pb.AccountResult(account=outcome)

    async def GetAccount(
        self, request: payments_pb.GetAccountRequest, context: Context
    ) -> payments_pb.Account:
        await self.does.meet("GetAccount", request, context)
        account = self.accounts.get(request.user_id)
        if account is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such account")
        return account


class FakeServices:
    """All services on one port; started and stopped with the test. Those without a fake have empty feeds."""

    def __init__(self) -> None:
        self.does = Behaviour()
        self.orders = FakeOrders(self.does)
        self.payments = FakePayments(self.does)
        self.address = ""

    async def start(self) -> None:
        self._server = aio.server(options=(("grpc.so_reuseport", 0),))
        fakes: dict[str, FakeFeed] = {name: FakeFeed(name, self.does) for name in SERVICES}
        for name, fake in (fakes | {"orders": self.orders, "payments": self.payments}).items():
            module = f"eshop.contracts.proto.{name}_v1_pb2"
            (own,) = import_module(module).DESCRIPTOR.services_by_name
            getattr(import_module(f"{module}_grpc"), f"add_{own}Servicer_to_server")(fake, self._server)
        port = self._server.add_insecure_port(self.address or "127.0.0.1:0")
        self.address = f"127.0.0.1:{port}"
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(None)


def _now() -> Timestamp:
    stamp = Timestamp()
    stamp.GetCurrentTime()
    return stamp


def _is_within(request: orders_pb.ListOrdersRequest, order: orders_pb.Order) -> bool:
    """Tell whether an order was created within the times that a request asks for."""
    created_at = order.created_at.ToNanoseconds()
    return (not request.HasField("created_after") or created_at > request.created_after.ToNanoseconds()) and (
        not request.HasField("created_before") or created_at < request.created_before.ToNanoseconds()
    )
