"""The feed hub: the open feeds of this gateway, and the dispatch of every event to its user's feeds.

See docs/adr/0010-what-a-gateway-shows.md.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from eshop.contracts.statuses import NEW
from gateway.feed.connection import End, Feed
from gateway.feed.frames import Frame, Stream
from gateway.feed.history import History
from gateway.http.problems import Problem
from gateway.metrics import Metrics

CONNECTIONS_PER_USER_MAX = 20
CONNECTIONS_MAX = 10_000

#: Called with a user and a frame of the user's.
Listener = Callable[[str, Frame], None]


class Hub:
    """Open feeds by user.

    ``noticed`` is called with the frame of every event, ``shown`` with each frame that was pushed,
    ``order_final`` with the id of an order that has reached a final status.
    """

    def __init__(
        self,
        history: History,
        metrics: Metrics,
        *,
        noticed: Listener,
        shown: Listener,
        order_final: Callable[[str], None],
    ) -> None:
        self._history = history
        self._metrics = metrics
        self._noticed = noticed
        self._shown = shown
        self._order_final = order_final
        self._feeds: dict[str, set[Feed]] = {}
        self._count = 0
        self._closing = False

    @contextmanager
    def attach(self, user_id: str) -> Iterator[Feed]:
        """Open a feed that is offered this user's frames from now on; raise a 429 or 503 Problem."""
        if self._closing or self._count >= CONNECTIONS_MAX:
            raise Problem("unavailable", "This gateway takes no more connections.")
        feeds = self._feeds.setdefault(user_id, set())
        if len(feeds) >= CONNECTIONS_PER_USER_MAX:
            raise Problem("too-many-connections", f"A user has {CONNECTIONS_PER_USER_MAX} at most.")
        feed = Feed(user_id, self._history, self._metrics, self._shown)
        feeds.add(feed)
        self._count_one(1)
        try:
            yield feed
        finally:
            self._count_one(-1)
            feeds.discard(feed)
            if not feeds and self._feeds.get(user_id) is feeds:
                del self._feeds[user_id]

    def dispatch(self, user_id: str, frame: Frame) -> None:
        """Offer an event's frame to its user's feeds, and report an order that is final."""
        self._noticed(user_id, frame)
        for feed in self._feeds.get(user_id, ()):
            feed.offer(frame)
        if frame.stream is Stream.ORDERS and frame.fields["status"] != NEW:
            self._order_final(frame.entity)

    def is_watched(self, user_id: str) -> bool:
        """Say whether the user has a feed open here."""
        return user_id in self._feeds

    def users(self) -> list[str]:
        """Return the users with a feed open here."""
        return list(self._feeds)

    def notice_head(self, user_id: str, stream: Stream, head_feed_number: int) -> None:
        """Tell a user's feeds how far a stream reaches."""
        for feed in self._feeds.get(user_id, ()):
            feed.notice_head(stream, head_feed_number)

    def close(self) -> None:
        """End every feed, and open none."""
        self._closing = True
        for feeds in self._feeds.values():
            for feed in feeds:
                feed.end(End.SHUTDOWN)

    def _count_one(self, by: int) -> None:
        self._count += by
        self._metrics.connections.set(self._count)
