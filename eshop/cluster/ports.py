"""Ports on 127.0.0.1: holders of taken ports, and free ports."""

import errno
import random
import socket

import psutil

from eshop.cluster.errors import ClusterError

HOST = "127.0.0.1"
#: Free ports are drawn from here: below the range of Linux and macOS for outgoing connections, so that no
#: client of another program takes one between the choice and the bind.
FREE_FIRST, FREE_LAST = 20_000, 32_000
CONNECT_SECONDS_MAX = 0.5
DRAWS_MAX = 500


def is_taken(port: int) -> bool:
    """Tell whether a program listens at the port, or the system refuses it."""
    with socket.socket() as probe:
        probe.settimeout(CONNECT_SECONDS_MAX)
        if probe.connect_ex((HOST, port)) == 0:
            return True
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno in {errno.EADDRINUSE, errno.EACCES}:
                return True
            raise
    return False


def holder_of(port: int) -> str | None:
    """Name the process that listens at the port, if the system tells."""
    try:
        listening = [
            found.pid
            for found in psutil.net_connections("tcp")
            if found.status == psutil.CONN_LISTEN and found.laddr and found.laddr.port == port and found.pid
        ]
        if not listening:
            return None
        return f"{psutil.Process(listening[0]).name()} (process {listening[0]})"
    except psutil.Error:
        return None


def require_free(port: int, what: str, flag: str) -> None:
    """Raise ClusterError, with the holder and the flag that moves the port, if the port is taken."""
    if not is_taken(port):
        return
    holder = holder_of(port) or "a process that the system does not name"
    raise ClusterError(
        f"port {port} ({what}) is taken by {holder}: stop that, or choose another port with {flag} PORT, "
        "or use free ports and a temporary folder with --ephemeral"
    )


def free_port(avoid: set[int]) -> int:
    """Draw a free port and add it to ``avoid``."""
    draw = random.SystemRandom()
    for _ in range(DRAWS_MAX):
        port = draw.randrange(FREE_FIRST, FREE_LAST)
        if port not in avoid and not is_taken(port):
            avoid.add(port)
            return port
    raise ClusterError(f"no free port between {FREE_FIRST} and {FREE_LAST}")


def next_free_port(after: int, avoid: set[int]) -> int:
    """Return the first free port above ``after`` and add it to ``avoid``."""
    for port in range(after + 1, min(after + 1 + DRAWS_MAX, 65_536)):
        if port not in avoid and not is_taken(port):
            avoid.add(port)
            return port
    raise ClusterError(f"no free port in the {DRAWS_MAX} after {after}")
