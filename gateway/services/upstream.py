"""Calls of the services: the token, a deadline on each, a circuit per service, failures as problems."""

import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import TypeVar

from google.protobuf.message import Message
from grpc import StatusCode, aio

from eshop.clients.channel import credentials, open_channel
from eshop.clients.stubs import stub_of
from eshop.clients.timeline import Ask, Timeline, read_timeline
from eshop.contracts.proto import orders_v1_pb2_grpc, payments_v1_pb2_grpc, timeline_v1_pb2_grpc
from eshop.contracts.proto.shared_v1_pb2 import FeedHeadsRequest
from gateway.breaker import Breaker, CircuitOpen
from gateway.http.problems import Problem
from gateway.metrics import Metrics

#: More than the services' own statement timeout (about 5 s), so that their reply wins.
CALL_SECONDS_MAX = 8.0
#: Calls in a row without an answer that open a service's circuit, and the mean time for which it is open.
#: Failures within the same moment count once: a dying worker ends all of its calls, and other workers may be
#: well.
CIRCUIT_FAILURES = 3
CIRCUIT_OPEN_SECONDS = 2.0
CIRCUIT_APART_SECONDS = 0.1

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
#: No answer. Every other code is an answer, a refusal too.
_SILENT = frozenset({StatusCode.DEADLINE_EXCEEDED, StatusCode.UNAVAILABLE})
#: How a down or busy service looks; any other failure is worth an error line.
_EXPECTED = frozenset({*_CODES, StatusCode.UNAVAILABLE, StatusCode.RESOURCE_EXHAUSTED, StatusCode.CANCELLED})

_Reply = TypeVar("_Reply")
logger = logging.getLogger(__name__)


class Upstream:
    """The services' stubs. A call of a service that did not answer the last calls is refused at once.

    ``stubs`` has the stub of each service of the catalogue; ``orders`` and ``payments`` are two of them.
    """

    def __init__(self, addresses: Mapping[str, str], token: str, metrics: Metrics) -> None:
        """Open a channel to each service; ``addresses`` has its workers, comma-separated."""
        self._channels = {service: open_channel(workers) for service, workers in addresses.items()}
        self.stubs = {service: stub_of(service, channel) for service, channel in self._channels.items()}
        self.orders: orders_v1_pb2_grpc.OrdersAsyncStub = self.stubs["orders"]
        self.payments: payments_v1_pb2_grpc.PaymentsAsyncStub = self.stubs["payments"]
        self._metadata = credentials(token)
        self._metrics = metrics
        self._circuits = {service: _circuit(service, metrics) for service in addresses}

    async def call(
        self,
        name: str,
        method: Callable[..., Awaitable[_Reply]],
        request: Message,
        seconds_max: float = CALL_SECONDS_MAX,
    ) -> _Reply:
        """Call and return the reply; raise the Problem of a failure. The call is not repeated.

        ``name`` is SERVICE.METHOD. While the service's circuit is open, the Problem has the time of the next
        probe.
        """
        began = time.perf_counter()
        code = StatusCode.OK.name
        try:
            with self._circuits[name.partition(".")[0]].call(_is_silence):
                return await method(request, timeout=seconds_max, metadata=self._metadata)
        except CircuitOpen as refusal:
            code = "CIRCUIT_OPEN"
            retry_after = str(max(1, math.ceil(refusal.retry_after_seconds)))
            raise Problem("unavailable", headers={"Retry-After": retry_after}) from refusal
        except aio.AioRpcError as error:
            code = error.code().name
            raise _problem(name, error.code(), error.details() or "") from error
        finally:
            self._metrics.upstream_seconds.labels(name, code).observe(time.perf_counter() - began)

    async def look(self, service: str) -> None:
        """Read from a service's database past the circuit, to see whether the service answers."""
        nobody = FeedHeadsRequest(user_ids=["-"])
        await self.stubs[service].FeedHeads(nobody, timeout=CALL_SECONDS_MAX, metadata=self._metadata)

    async def timeline(self, order_id: str) -> Timeline | None:
        """Return what all services know of an order; None if there is no such order."""

        def ask(service: str) -> Ask:
            method = timeline_v1_pb2_grpc.TimelinePartsStub(self._channels[service]).GetTimelinePart
            return lambda request: self.call(f"{service}.GetTimelinePart", method, request)

        return await read_timeline(order_id, {service: ask(service) for service in self._channels})

    async def close(self) -> None:
        """Close the channels."""
        for channel in self._channels.values():
            await channel.close()


def _circuit(service: str, metrics: Metrics) -> Breaker:
    def changed(is_open: bool) -> None:
        metrics.circuit_open.labels(service).set(is_open)
        logger.warning("the circuit of %s is %s", service, "open" if is_open else "closed again")

    metrics.circuit_open.labels(service).set(0)
    return Breaker(CIRCUIT_FAILURES, CIRCUIT_OPEN_SECONDS, changed, apart_seconds=CIRCUIT_APART_SECONDS)


def _is_silence(error: Exception) -> bool:
    return isinstance(error, aio.AioRpcError) and error.code() in _SILENT


def _problem(name: str, code: StatusCode, details: str) -> Problem:
    if code not in _EXPECTED:
        logger.error("%s failed: %s: %s", name, code.name, details[:500])
    return Problem(_CODES.get(code, "unavailable"), details if code in _SPEAKING else "")
