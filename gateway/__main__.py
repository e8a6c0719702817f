"""`python -m gateway`: a gateway process."""

import asyncio
import logging
import sys

import uvloop

from eshop.kafka.connections import report_broken_connections
from eshop.settings import Settings
from gateway.app import create_app
from gateway.http.identity import LOUD_WARNING
from gateway.server import serve


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    settings = Settings()
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        stream=sys.stderr,
    )
    # aiokafka logs every attempt to reach a lost broker; `gateway.feed.events` logs the loss once.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    # aiohttp logs a stack for every malformed request line; the middleware logs all requests that reach a
    # handler.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    report_broken_connections()
    log = logging.getLogger("gateway")
    log.warning("*** %s ***", LOUD_WARNING)
    host, port = settings.web_address("gateway")
    log.info("HTTP on %s:%d", host, port)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(create_app(settings), host, port, settings.drain_seconds))


if __name__ == "__main__":
    main()
