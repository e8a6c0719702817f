"""Readiness probes: a short request to each kind of server, answered from 127.0.0.1 within seconds."""

import http.client
import socket
import struct

import psycopg2

from eshop.cluster.ports import HOST

PROBE_SECONDS_MAX = 1.0
POSTGRES_SECONDS_MAX = 2  # libpq's least
API_VERSIONS_KEY = 18
CORRELATION_ID = 7
PASSWORD = "postgres"  # noqa: S105  (the documented one of a development database on the loopback)


def postgres_url(port: int) -> str:
    """Return the superuser's address of the maintenance database."""
    return f"postgresql://postgres:{PASSWORD}@{HOST}:{port}/postgres"


def postgres_is_ready(port: int) -> bool:
    """Tell whether Postgres lets its superuser in."""
    try:
        psycopg2.connect(postgres_url(port), connect_timeout=POSTGRES_SECONDS_MAX).close()
    except psycopg2.Error:
        return False
    return True


def kafka_is_ready(port: int) -> bool:
    """Tell whether Kafka returns its API versions: it opens its port before it accepts requests."""
    request = struct.pack(">hhih", API_VERSIONS_KEY, 0, CORRELATION_ID, -1)
    answer = _ask(port, struct.pack(">i", len(request)) + request, 8)
    return len(answer) == 8 and struct.unpack(">ii", answer)[1] == CORRELATION_ID


def valkey_is_ready(port: int) -> bool:
    """Tell whether Valkey answers a ping."""
    return _ask(port, b"PING\r\n", 5) == b"+PONG"


def http_is_ready(port: int, path: str = "/health/ready") -> bool:
    """Tell whether a service of the shop answers 200 there."""
    connection = http.client.HTTPConnection(HOST, port, timeout=PROBE_SECONDS_MAX)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _ask(port: int, request: bytes, answer_bytes: int) -> bytes:
    try:
        with socket.create_connection((HOST, port), PROBE_SECONDS_MAX) as connection:
            connection.settimeout(PROBE_SECONDS_MAX)
            connection.sendall(request)
            return connection.recv(answer_bytes)
    except OSError:
        return b""
