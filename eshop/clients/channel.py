"""The client's side of gRPC: one channel per service, balanced over its workers."""

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from types import MappingProxyType
from typing import Any, Self

from grpc import ChannelConnectivity, aio

#: The caller's credentials; the server checks them.
TOKEN_HEADER = "authorization"  # noqa: S105  a header's name

#: After PING + PONG seconds without an answer the connection is closed and its calls fail. No caller's
#: deadline is longer.
PING_AFTER_SECONDS = 5.0
PONG_SECONDS_MAX = 3.0

_OPTIONS = (
    ("grpc.lb_policy_name", "round_robin"),
    # The services are neighbours: a proxy of the network (http_proxy) can't reach them.
    ("grpc.enable_http_proxy", 0),
    ("grpc.keepalive_time_ms", int(PING_AFTER_SECONDS * 1000)),
    ("grpc.keepalive_timeout_ms", int(PONG_SECONDS_MAX * 1000)),
    # Without it gRPC waits a minute for the answer to a ping, regardless of the line above.
    ("grpc.http2.ping_timeout_ms", int(PONG_SECONDS_MAX * 1000)),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.max_receive_message_length", 8 * 1024 * 1024),
)
#: The preference among channels for a call; a channel that has just failed comes last.
_NEAREST: Mapping[ChannelConnectivity, int] = MappingProxyType(
    {ChannelConnectivity.READY: 0, ChannelConnectivity.CONNECTING: 1, ChannelConnectivity.IDLE: 1}
)


def open_channel(addresses: str) -> aio.Channel:
    """Open a channel to every HOST:PORT of a comma-separated list; calls go to the workers in turn.

    A host name may stand for many workers: all its addresses are used, and the name is looked up again when a
    connection ends.
    """
    targets = [address.strip() for address in addresses.split(",")]
    schemes = {_scheme(target) for target in targets}
    if len(targets) == 1:
        return _open(f"dns:///{targets[0]}")
    if len(schemes) == 1 and "dns" not in schemes:
        return _open(f"{schemes.pop()}:{','.join(targets)}")
    # gRPC looks up one name per channel.
    return _SeveralNames([_open(f"dns:///{target}") for target in targets])


def _open(target: str) -> aio.Channel:
    return aio.insecure_channel(target, options=_OPTIONS)


def _scheme(target: str) -> str:
    """Return gRPC's scheme for a HOST:PORT: ipv4, ipv6, or dns for a name."""
    try:
        return f"ipv{ip_address(target.rpartition(':')[0].strip('[]')).version}"
    except ValueError:
        return "dns"


class _SeveralNames(aio.Channel):
    """A channel per name; each call goes to the next connected channel. All calls are unary."""

    def __init__(self, channels: Sequence[aio.Channel]) -> None:
        self._channels = channels
        self._turn = 0

    def unary_unary(self, *arguments: Any, **options: Any) -> Any:
        methods = [channel.unary_unary(*arguments, **options) for channel in self._channels]

        def call(*request: Any, **how: Any) -> Any:
            return methods[self._next()](*request, **how)

        return call

    def _next(self) -> int:
        """Return the next channel among those that are nearest to serving. All others connect."""
        states = [_NEAREST.get(channel.get_state(try_to_connect=True), 2) for channel in self._channels]
        nearest = [number for number, state in enumerate(states) if state == min(states)]
        self._turn += 1
        return nearest[self._turn % len(nearest)]

    async def close(self, grace: float | None = None) -> None:
        for channel in self._channels:
            await channel.close(grace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError("several channels have no state in common, and serve unary calls only")

    get_state = wait_for_state_change = channel_ready = _refuse
    unary_stream = stream_unary = stream_stream = _refuse


def credentials(token: str) -> Sequence[tuple[str, str]]:
    """Return the metadata that every call must carry."""
    return ((TOKEN_HEADER, f"Bearer {token}"),)
