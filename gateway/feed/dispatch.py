"""From an event of a topic to the feeds of its user."""

import time

from eshop.contracts.messages import Message
from gateway.feed import frames
from gateway.feed.hub import Hub
from gateway.metrics import Metrics


class EventDispatch:
    """Makes a frame of each event and offers it to the hub. Events without a frame are for no client."""

    def __init__(self, hub: Hub, metrics: Metrics) -> None:
        self._hub = hub
        self._metrics = metrics

    def handle(self, message: Message) -> None:
        """Dispatch an event. Measures the time since its commit if its user has a feed open here."""
        frame = frames.of_event(message)
        if frame is None:
            return
        self._hub.dispatch(message.user_id, frame)
        if self._hub.is_watched(message.user_id):
            delay_seconds = time.time() - message.envelope.time.timestamp()
            self._metrics.push_seconds.observe(max(0.0, delay_seconds))
