"""The agent of the projections: stream, fold, acknowledge; paced, because nobody waits for a projection.

See docs/adr/0024-a-fetch-is-queued-whole.md.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from faust.types.streams import StreamT

from eshop.agents.batches import ack_in_order, batches
from eshop.process.app import ServiceApp
from eshop.process.exit import end_process
from eshop.tables.users import Users

#: Events that are folded together. Fewer mean that no more were there.
EVENTS_MAX = 1_000
#: Folds begin this far apart, except in a backlog: an event costs ten times as much alone as among others.
PACE_SECONDS = 0.25
#: The acknowledgement of a fold's events waits this long for the fold's records in the changelog.
RECORDS_SECONDS_MAX = 5.0


def register(app: ServiceApp, topic_names: Sequence[str], users: Users) -> None:
    """Fold every event of the topics into its user's entry, once.

    A poison message is passed over, with a warning in the log and a count: its own reader parks it, and a
    projection could keep nothing of it. A message of a type that only newer versions know is passed over and
    counted. An event that can't be folded ends the process, unacknowledged.
    """

    async def fold_users(stream: StreamT[Any]) -> None:
        app.producer.buffer.max_messages = EVENTS_MAX  # this agent waits for its records itself
        async for events in batches(app, stream, EVENTS_MAX):
            if not app.flow_control.is_active():
                continue  # partitions change hands, and the events are read again
            begun = time.monotonic()
            try:
                sent = users.take(events)
            except Exception as error:  # noqa: BLE001  whatever it is, going on would lose the events
                end_process(f"the projections failed: {error!r}")
            if sent:
                await asyncio.wait(sent, timeout=RECORDS_SECONDS_MAX)
            ack_in_order(app, events)
            if len(events) < EVENTS_MAX:
                await asyncio.sleep(begun + PACE_SECONDS - time.monotonic())

    app.agent(app.topic(*topic_names), name="projections.users")(fold_users)
