"""Events that are folded together: each user's entry is read once, and written at most once."""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import prometheus_client
from faust.types import EventT

from eshop.contracts.envelope import UndecodableMessage
from eshop.contracts.messages import Message, Origin, decode
from eshop.tables.entry import UserEntry
from eshop.tables.fold import Outcome, feed_of, fold

_events = prometheus_client.Counter(
    "eshop_projection_events", "Events that the projections read, by outcome", ["outcome"]
)
_missed = prometheus_client.Counter("eshop_projection_missed", "Missing feed numbers", ["feed"])
_UNDECODABLE = "undecodable"
_by_outcome = {name: _events.labels(name) for name in (*(outcome.value for outcome in Outcome), _UNDECODABLE)}

logger = logging.getLogger(__name__)

#: Partition and key: keys are the same in every topic, and so are their partitions.
Place = tuple[int, bytes]


class CannotFold(Exception):
    """An event was decoded and can't be folded: a bug, or the store's error."""


@dataclass(slots=True)
class BatchUser:
    """A user's entry before the batch (None for a new user), and as far as the batch is folded."""

    old: UserEntry | None
    entry: UserEntry
    is_written: bool = False


class Batch:
    """The fold of a batch of events. Nothing is stored: ``users`` has the result."""

    def __init__(self, load: Callable[[int, bytes], UserEntry | None], now: int) -> None:
        """Prepare; ``load`` returns the stored entry of a place, ``now`` is the minute since the epoch."""
        self._load = load
        self._now = now
        self._outcomes: Counter[str] = Counter()
        self.users: dict[Place, BatchUser] = {}

    def fold(self, event: EventT[Any]) -> None:
        """Fold the next event; raise CannotFold. An event that can't be decoded is passed over."""
        read = event.message
        try:
            self._fold(_decode(event), read.partition)
        except UndecodableMessage as error:
            self._outcomes[_UNDECODABLE] += 1
            logger.warning("passed over %s offset %d: %s", read.tp, read.offset, error)
        except Exception as error:
            raise CannotFold(f"{read.tp} offset {read.offset} can't be folded: {error!r}") from error

    def count(self) -> None:
        """Count the outcomes: last, when the result is stored."""
        for name, count in self._outcomes.items():
            _by_outcome[name].inc(count)

    def _fold(self, message: Message, partition: int) -> None:
        user = self._user((partition, message.user_id.encode()))
        happened = int(message.envelope.time.timestamp()) // 60
        folded = fold(user.entry, message.body, happened, self._now)
        user.entry = folded.entry
        user.is_written = user.is_written or not folded.outcome.changes_nothing
        self._outcomes[folded.outcome.value] += 1
        if folded.missed:
            feed = feed_of(message.body)
            _missed.labels(feed).inc(folded.missed)
            logger.error(
                "%d %s feed numbers of user %s never came, before %s",
                *(folded.missed, feed, message.user_id, message.origin),
            )

    def _user(self, place: Place) -> BatchUser:
        user = self.users.get(place)
        if user is None:
            old = self._load(*place)
            user = self.users[place] = BatchUser(old, old or UserEntry())
        return user


def _decode(event: EventT[Any]) -> Message:
    read = event.message
    origin = Origin(read.topic, read.partition, read.offset)
    return decode(origin, cast("bytes", read.key), cast("bytes", read.value), cast("Any", read.headers))
