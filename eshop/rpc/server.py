"""The gRPC server of a worker: authentication, status codes of errors, health and reflection.

See docs/adr/0005-drivers.md.
"""

import hmac
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from eshop.clients.channel import PING_AFTER_SECONDS, TOKEN_HEADER
from eshop.store.faults import TransientFault

logger = logging.getLogger(__name__)

MESSAGE_BYTES_MAX = 8 * 1024 * 1024
#: Concurrent requests in this process; a further request gets RESOURCE_EXHAUSTED.
REQUESTS_MAX = 256
STOP_SECONDS_MAX = 5.0
#: A connection of this age is closed after its calls have ended. The client then looks the name up again, and
#: finds workers that were added.
CONNECTION_SECONDS_MAX = 60.0


class InvalidRequest(ValueError):
    """A request that breaks the contract. The caller gets the text."""


class _Guard(aio.ServerInterceptor):
    """Checks the service token, and turns exceptions of handlers into status codes."""

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}".encode()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith("/grpc.health.v1."):
            return handler
        shown = str(dict(handler_call_details.invocation_metadata or ()).get(TOKEN_HEADER, ""))
        if not hmac.compare_digest(shown.encode(), self._expected):
            return _denying(handler)
        if handler.unary_unary is None:
            return handler
        return grpc.unary_unary_rpc_method_handler(
            _translating(handler.unary_unary), handler.request_deserializer, handler.response_serializer
        )


def _denying(handler: Any) -> Any:
    async def deny(_request: Any, context: aio.ServicerContext[Any, Any]) -> None:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the service token is missing or wrong")

    kind = (
        grpc.stream_stream_rpc_method_handler
        if handler.stream_stream
        else grpc.unary_unary_rpc_method_handler
    )
    return kind(deny, handler.request_deserializer, handler.response_serializer)


def _translating(call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def translated(request: Any, context: aio.ServicerContext[Any, Any]) -> Any:
        try:
            return await call(request, context)
        except aio.AbortError:
            raise
        except InvalidRequest as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except TransientFault as fault:
            logger.warning("a request failed for now: %s", fault)
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the database is not available")
        except Exception:
            logger.exception("a request failed")
            await context.abort(grpc.StatusCode.INTERNAL, "the request could not be done")

    return translated


class GrpcServer:
    """A worker's gRPC server, with health and, unless switched off, reflection."""

    def __init__(
        self, address: str, token: str, *, service_names: Sequence[str], with_reflection: bool
    ) -> None:
        self._server = aio.server(
            interceptors=(_Guard(token),),
            options=(
                ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
                ("grpc.so_reuseport", 0),
                ("grpc.max_connection_age_ms", int(CONNECTION_SECONDS_MAX * 1000)),
                ("grpc.http2.min_ping_interval_without_data_ms", int(PING_AFTER_SECONDS * 500)),
                ("grpc.keepalive_permit_without_calls", 1),
            ),
            maximum_concurrent_rpcs=REQUESTS_MAX,
        )
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = [*service_names, health.SERVICE_NAME]
        if with_reflection:
            reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], self._server)
        self._names = (*service_names, "")
        self.address = address

    @property
    def server(self) -> aio.Server:
        """The gRPC server to which servicers are added."""
        return self._server

    async def start(self) -> None:
        """Listen; raise RuntimeError if the address is taken."""
        self._server.add_insecure_port(self.address)
        await self._server.start()
        for name in self._names:
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        logger.info("gRPC on %s", self.address)

    async def stop(self) -> None:
        """Tell clients to go elsewhere, and let running requests end."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(STOP_SECONDS_MAX)
