"""The client's side of gRPC: one channel per service, balanced over its workers."""

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from types import MappingProxyType
from typing import Any, Self

from grpc import ChannelConnectivity, aio

#: What the caller shows to be let in; `servicer` checks it.
TOKEN_HEADER = "authorization"  # noqa: S105  a header's name

#: A worker that is frozen, or whose machine is gone, loses its connections after both, and the calls on them
#: fail: no caller of ours waits longer than that for an answer, so they lose little.
PING_AFTER_SECONDS = 5.0
PONG_SECONDS_MAX = 3.0

_OPTIONS = (
    ("grpc.lb_policy_name", "round_robin"),
    # The services are neighbours: an office's proxy (http_proxy) leads nowhere near them.
    ("grpc.enable_http_proxy", 0),
    ("grpc.keepalive_time_ms", int(PING_AFTER_SECONDS * 1000)),
    ("grpc.keepalive_timeout_ms", int(PONG_SECONDS_MAX * 1000)),
    # Without it a keepalive ping is waited for as long as any other: a minute, whatever the line above says.
    ("grpc.http2.ping_timeout_ms", int(PONG_SECONDS_MAX * 1000)),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.max_receive_message_length", 8 * 1024 * 1024),
)
#: Which channel a call is given to rather than another; one that has just failed comes last.
_NEAREST: Mapping[ChannelConnectivity, int] = MappingProxyType(
    {ChannelConnectivity.READY: 0, ChannelConnectivity.CONNECTING: 1, ChannelConnectivity.IDLE: 1}
)


def open_channel(addresses: str) -> aio.Channel:
    """Open a channel to every HOST:PORT of a comma-separated list; calls go to the workers in turn.

    A host name may stand for many workers: all its addresses are used, and it is looked up again when a
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
    """One channel per name; each call goes to the next that is connected. Calls are unary, as all of ours."""

    def __init__(self, channels: Sequence[aio.Channel]) -> None:
        self._channels = channels
        self._turn = 0

    def unary_unary(self, *arguments: Any, **options: Any) -> Any:
        methods = [channel.unary_unary(*arguments, **options) for channel in self._channels]

        def call(*request: Any, **how: Any) -> Any:
            return methods[self._next()](*request, **how)

        return call

    def _next(self) -> int:
        """Return which channel's turn it is, among those that are nearest to serving. All others connect."""
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
