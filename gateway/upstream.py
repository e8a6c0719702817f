"""Calls of the services: the token, a deadline on each, and their failures as problems."""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import TypeVar

from google.protobuf.message import Message
from grpc import StatusCode, aio

from eshop.contracts.proto import orders_v1_pb2_grpc, payments_v1_pb2_grpc, trails_v1_pb2, trails_v1_pb2_grpc
from eshop.rpc.client import credentials, open_channel
from eshop.rpc.timeline import Timeline, read_timeline
from gateway.metrics import Metrics
from gateway.problems import Problem

#: More than the services' own statement timeout (about 5 s), so that their answer wins.
CALL_SECONDS_MAX = 8.0

_CODES: Mapping[StatusCode, str] = MappingProxyType(
    {
        StatusCode.NOT_FOUND: "not-found",
        StatusCode.INVALID_ARGUMENT: "invalid",
        StatusCode.OUT_OF_RANGE: "invalid",
        StatusCode.ALREADY_EXISTS: "conflict",
        StatusCode.FAILED_PRECONDITION: "conflict",
        StatusCode.DEADLINE_EXCEEDED: "slow",
    }
)
#: Said in the problem's detail; all others mean "not now", and their text may be for operators only.
_SPEAKING = frozenset({StatusCode.INVALID_ARGUMENT, StatusCode.OUT_OF_RANGE, StatusCode.FAILED_PRECONDITION})
#: How a down or busy service looks; any other failure is worth an error line.
_EXPECTED = frozenset({*_CODES, StatusCode.UNAVAILABLE, StatusCode.RESOURCE_EXHAUSTED, StatusCode.CANCELLED})

_Reply = TypeVar("_Reply")
_log = logging.getLogger(__name__)


class Upstream:
    """Both services' stubs. A service that is down is refused at once by its channel, which reconnects."""

    def __init__(self, orders: str, payments: str, token: str, metrics: Metrics) -> None:
        self._channels = (open_channel(orders), open_channel(payments))
        self.orders = orders_v1_pb2_grpc.OrdersStub(self._channels[0])
        self.payments = payments_v1_pb2_grpc.PaymentsStub(self._channels[1])
        self._trails = [trails_v1_pb2_grpc.TrailsStub(channel).GetTrail for channel in self._channels]
        self._metadata = credentials(token)
        self._metrics = metrics

    async def call(
        self,
        name: str,
        method: Callable[..., Awaitable[_Reply]],
        request: Message,
        seconds_max: float = CALL_SECONDS_MAX,
    ) -> _Reply:
        """Call and return the reply; raise the Problem that a failure means. It is not tried again."""
        began = time.perf_counter()
        code = StatusCode.OK
        try:
            return await method(request, timeout=seconds_max, metadata=self._metadata)
        except aio.AioRpcError as error:
            code = error.code()
            raise _problem(name, code, error.details() or "") from error
        finally:
            self._metrics.upstream_seconds.labels(name, code.name).observe(time.perf_counter() - began)

    async def timeline(self, order_id: str) -> Timeline | None:
        """Return what both services know of an order; None where there is none."""

        async def ask_orders(request: trails_v1_pb2.GetTrailRequest) -> trails_v1_pb2.Trail:
            return await self.call("orders.GetTrail", self._trails[0], request)

        async def ask_payments(request: trails_v1_pb2.GetTrailRequest) -> trails_v1_pb2.Trail:
            return await self.call("payments.GetTrail", self._trails[1], request)

        return await read_timeline(order_id, ask_orders, ask_payments)

    async def close(self) -> None:
        """Close both channels."""
        for channel in self._channels:
            await channel.close()


def _problem(name: str, code: StatusCode, details: str) -> Problem:
    if code not in _EXPECTED:
        _log.error("%s failed: %s: %s", name, code.name, details[:500])
    return Problem(_CODES.get(code, "unavailable"), details if code in _SPEAKING else "")
