"""Cached reads of a user's orders and account, with the floors of what the user was shown."""

from eshop.contracts.proto import orders_v1_pb2, payments_v1_pb2
from gateway.cache import Fresh, Key, Reading, ReadThrough
from gateway.feed.frames import Frame, Stream
from gateway.http.problems import Problem
from gateway.http.views import fresh_account, fresh_order
from gateway.services.upstream import Upstream


def order_key(user_id: str, order_id: str) -> Key:
    """Return the cache's name of a user's order."""
    return Key(Stream.ORDERS, user_id, order_id)


def account_key(user_id: str) -> Key:
    """Return the cache's name of a user's account."""
    return Key(Stream.WALLET, user_id, "")


class CachedReads:
    """Monotonic reads: no response is older than what this gateway has shown to the same user."""

    def __init__(self, cache: ReadThrough, upstream: Upstream) -> None:
        self._cache = cache
        self._upstream = upstream

    async def order(self, user_id: str, order_id: str, at_least: int) -> Reading:
        """Return the rendered order; raise the 404 Problem if it is unknown or another user's."""

        async def load() -> Fresh:
            return fresh_order(await self.order_now(user_id, order_id))

        return await self._cache.read(order_key(user_id, order_id), load, at_least)

    async def order_now(self, user_id: str, order_id: str) -> orders_v1_pb2.Order:
        """Return the order as the service has it now; raise the 404 Problem."""
        request = orders_v1_pb2.GetOrderRequest(user_id=user_id, order_id=order_id)
        return await self._upstream.call("orders.GetOrder", self._upstream.orders.GetOrder, request)

    async def not_older(self, order: orders_v1_pb2.Order) -> orders_v1_pb2.Order:
        """Return an order of a service's reply, or read again if its user has seen a newer version."""
        if order.version >= self.shown_version(order.user_id, order.order_id):
            return order
        return await self.order_now(order.user_id, order.order_id)

    def shown_version(self, user_id: str, order_id: str) -> int:
        """Return the version of an order that its user was shown here lately; 0 for none."""
        return self._cache.floors.of(order_key(user_id, order_id)) or 0

    async def account(self, user_id: str, at_least: int) -> Reading:
        """Return the rendered account; raise the 404 Problem if there is none."""

        async def load() -> Fresh:
            return fresh_account(await self._account_now(user_id))

        return await self._cache.read(account_key(user_id), load, at_least)

    async def _account_now(self, user_id: str) -> payments_v1_pb2.Account:
        request = payments_v1_pb2.GetAccountRequest(user_id=user_id)
        try:
            return await self._upstream.call(
                "payments.GetAccount", self._upstream.payments.GetAccount, request
            )
        except Problem as problem:
            if problem.code == "not-found":
                raise Problem("no-account") from problem
            raise

    def show_order(self, order: orders_v1_pb2.Order) -> None:
        """Note that the user is being shown this order."""
        self._cache.floors.show(order_key(order.user_id, order.order_id), order.version)

    async def show_account(self, account: payments_v1_pb2.Account) -> None:
        """Note that the user is being shown this account, and offer it to later reads."""
        self.show_wallet(account.user_id, account.version)
        await self._cache.put(account_key(account.user_id), fresh_account(account))

    def show_wallet(self, user_id: str, version: int) -> None:
        """Note that the user is being shown the wallet at this version."""
        self._cache.floors.show(account_key(user_id), version)

    def show_frame(self, user_id: str, frame: Frame) -> None:
        """Note that the user was pushed this frame."""
        self._cache.floors.show(_key_of(user_id, frame), frame.version)

    def notice_frame(self, user_id: str, frame: Frame) -> None:
        """Have no response to the user come from before this change."""
        key = _key_of(user_id, frame)
        if self._cache.floors.knows(key):
            self._cache.floors.show(key, frame.version)


def _key_of(user_id: str, frame: Frame) -> Key:
    return Key(frame.stream, user_id, frame.entity)
