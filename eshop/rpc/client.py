"""The client's side of gRPC: one channel per service, balanced over its workers."""

from collections.abc import Sequence

from grpc import aio

#: What the caller shows to be let in; `servicer` checks it.
TOKEN_HEADER = "authorization"  # noqa: S105  a header's name

#: A worker that is frozen, or whose machine is gone, loses its connections after both, and the calls on them
#: fail: no caller of ours waits longer than that for an answer, so they lose little.
PING_AFTER_SECONDS = 5.0
PONG_SECONDS_MAX = 3.0

_OPTIONS = (
    ("grpc.lb_policy_name", "round_robin"),
    ("grpc.keepalive_time_ms", int(PING_AFTER_SECONDS * 1000)),
    ("grpc.keepalive_timeout_ms", int(PONG_SECONDS_MAX * 1000)),
    # Without it a keepalive ping is waited for as long as any other: a minute, whatever the line above says.
    ("grpc.http2.ping_timeout_ms", int(PONG_SECONDS_MAX * 1000)),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.max_receive_message_length", 8 * 1024 * 1024),
)


def open_channel(addresses: str) -> aio.Channel:
    """Open a channel to every HOST:PORT of a comma-separated list; calls go to the workers in turn.

    One host name may stand for many workers: all its addresses are used. Several addresses must be numeric,
    because gRPC resolves one name per channel.
    """
    hosts = [address.strip() for address in addresses.split(",")]
    target = f"dns:///{hosts[0]}" if len(hosts) == 1 else f"ipv4:{','.join(hosts)}"
    return aio.insecure_channel(target, options=_OPTIONS)


def credentials(token: str) -> Sequence[tuple[str, str]]:
    """Return the metadata that every call must carry."""
    return ((TOKEN_HEADER, f"Bearer {token}"),)
