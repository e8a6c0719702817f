"""`python -m gateway`: one gateway process."""

import logging
import sys

import uvloop
from aiohttp import web

from eshop.connections import report_broken_connections
from eshop.settings import Settings
from gateway.app import SERVER_OPTIONS, create_app
from gateway.identity import LOUD_WARNING

#: For requests in flight once we are asked to leave: more than a call's deadline.
SHUTDOWN_SECONDS_MAX = 12.0


def main() -> None:
    """Serve until SIGTERM or SIGINT: then stop accepting, finish requests, close sockets with 1001."""
    settings = Settings()
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        stream=sys.stderr,
    )
    # It tells of a broker that is away with every attempt; `gateway.events` says it once.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    # It prints a stack for every malformed request line; what reaches a handler is logged by us.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    report_broken_connections()
    log = logging.getLogger("gateway")
    log.warning("*** %s ***", LOUD_WARNING)
    host, port = settings.web_address("gateway")
    log.info("HTTP on %s:%d", host, port)
    web.run_app(
        create_app(settings),
        host=host,
        port=port,
        access_log=None,
        shutdown_timeout=SHUTDOWN_SECONDS_MAX,
        **SERVER_OPTIONS,
        loop=uvloop.new_event_loop(),
        print=None,
    )


if __name__ == "__main__":
    main()
