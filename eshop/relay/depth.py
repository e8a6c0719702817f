"""The depth and age of the outbox: from the table itself, whether a relay publishes it or not."""

from prometheus_client import Gauge

from eshop.store.database import Database
from eshop.store.outbox import read_depth

MEASURE_SECONDS = 5.0
#: Counting stops here, so that it stays cheap when it matters.
MESSAGES_MAX = 100_000

_unsent = Gauge(
    "eshop_outbox_unsent_messages", f"Messages that wait in the outbox, counted up to {MESSAGES_MAX}"
)
_oldest = Gauge("eshop_relay_oldest_seconds", "For how long the oldest message has waited in the outbox")


async def measure_outbox(database: Database) -> None:
    """Update the gauges; raises the database's faults."""
    depth = await database.run_alone(lambda session: read_depth(session, MESSAGES_MAX))
    _unsent.set(depth.messages)
    _oldest.set(depth.oldest_seconds)
