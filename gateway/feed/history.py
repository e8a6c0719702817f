"""A user's feed in Postgres: the reference for the topics' events, and the source of missing frames."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.feed.frames import Frame, Since, Stream

#: Frames of one read.
PAGE_MAX = 500


@dataclass(frozen=True, slots=True)
class Page:
    """Frames in order, right after the requested number, and the stream's head at the time."""

    frames: Sequence[Frame]
    head_feed_number: int


class History(Protocol):
    """The history of feeds. Failures are raised as Problems."""

    async def read(self, stream: Stream, user_id: str, after_feed_number: int) -> Page:
        """Return the first frames after a number."""

    async def heads(self, stream: Stream, user_ids: Sequence[str]) -> Sequence[int]:
        """Return the last number of each user's stream now."""


async def number_before(
    history: History, stream: Stream, user_id: str, head_feed_number: int, since: Since
) -> int:
    """Return the last feed number, up to the head, from before a time; 0: none. History is read backwards."""
    first = head_feed_number + 1
    while first > 1:
        page = await history.read(stream, user_id, max(0, first - 1 - PAGE_MAX))
        newer = (
            frame.feed_number
            for frame in page.frames
            if frame.feed_number < first and frame.fields["at"] >= since.at()
        )
        oldest = next(newer, first)
        if not page.frames or oldest > page.frames[0].feed_number:
            return oldest - 1
        first = oldest
    return 0
