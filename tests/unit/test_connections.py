"""aiokafka on uvloop: a connection that breaks under a request is an error that aiokafka retries."""

import asyncio

import pytest
import uvloop
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

from eshop.kafka.connections import report_broken_connections


async def _write_to_a_closed_connection() -> None:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    connection = AIOKafkaConnection("127.0.0.1", port)
    connection._writer, connection._versions = writer, {MetadataRequest.API_KEY: (0, 1)}
    try:
        writer.transport.abort()
        assert await reader.read() == b""
        with pytest.raises(KafkaConnectionError, match="closed"):
            connection.send(MetadataRequest([]))
        assert not connection.connected()
    finally:
        server.close()
        await server.wait_closed()


def test_write_to_a_connection_that_uvloop_has_closed_is_a_connection_error() -> None:
    report_broken_connections()
    uvloop.run(_write_to_a_closed_connection())
