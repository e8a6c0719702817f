"""The unsent messages that may be published now: bookkeeping over pages of the outbox, without a clock.

A key is a topic and a partition. Messages of a key are published one attempt at a time, in the outbox's
order. A key is held from the begin of an attempt until none of its messages is left; a failed attempt holds
no message of another key.

The floor makes reading cheap. Its invariant: every unsent message below the floor, committed or yet to be
committed, belongs to a held key, and is in flight or not below the key's ``first_id``. So a page is read from
the floor on and skips both index entries of messages that were sent long ago and messages that can't leave.

See docs/adr/0016-what-the-relay-waits-for.md.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from eshop.backoff import Backoff
from eshop.relay.placement import partition_of
from eshop.store.outbox import Page, Unsent

#: Messages in a page, and more while the page would be filled by held messages that the floor can't pass yet.
ROWS_MAX = 2_000
HELD_ROWS_MAX = 8_000
BACKOFF_SECONDS = 0.2
BACKOFF_SECONDS_MAX = 5.0

Key = tuple[str, int]
Groups = dict[Key, list[Unsent]]


@dataclass(slots=True)
class _Hold:
    in_flight: frozenset[int] = frozenset()
    #: The lowest known unsent id below or near the floor that is not in flight.
    first_id: int | None = None
    retry_at: float = 0.0
    backoff: Backoff = field(default_factory=lambda: Backoff(BACKOFF_SECONDS, BACKOFF_SECONDS_MAX))

    def is_due(self, now: float) -> bool:
        return not self.in_flight and self.first_id is not None and now >= self.retry_at

    def notice(self, ids: Collection[int]) -> None:
        waiting = {outbox_id for outbox_id in ids if outbox_id not in self.in_flight}
        if self.first_id is not None:
            waiting.add(self.first_id)
        self.first_id = min(waiting, default=None)


class Backlog:
    """One relay's knowledge of a service's outbox. It stays true if another relay publishes in between."""

    def __init__(self) -> None:
        self.floor = 0
        self._proof: tuple[int, int] | None = None
        self._holds: dict[Key, _Hold] = {}
        self._held_rows = 0

    @property
    def limit(self) -> int:
        """The size of the next page: held messages must not fill it."""
        return ROWS_MAX + min(self._held_rows, HELD_ROWS_MAX)

    @property
    def held(self) -> list[Key]:
        """The keys whose messages are in flight or wait after a failure."""
        return list(self._holds)

    def take(self, page: Page) -> Groups:
        """Begin an attempt on all messages of a page at the floor whose key is not held; return them."""
        assert page.from_id == self.floor, "the floor's invariant is about pages that begin at it"
        fresh: Groups = {}
        self._held_rows = 0
        for key, rows in _by_key(page.rows).items():
            hold = self._holds.get(key)
            if hold is None:
                fresh[key] = rows
                self._holds[key] = _Hold(_ids(rows))
            else:
                hold.notice(_ids(rows))
                self._held_rows += len(rows)
        self._raise_floor(page)
        return fresh

    def retry_from(self, now: float) -> int | None:
        """Return the first id of the page to be tried again, or None if no held key is due.

        Not after the floor, although a key's messages may be: only below the floor no message of the same
        user can be committed later with a lower id.
        """
        due = [
            hold.first_id for hold in self._holds.values() if hold.is_due(now) if hold.first_id is not None
        ]
        return min(*due, self.floor) if due else None

    def seconds_to_retry(self, now: float) -> float:
        """Return for how long no held key will be due."""
        waiting = [
            h.retry_at - now for h in self._holds.values() if not h.in_flight if h.first_id is not None
        ]
        return max(0.0, min(waiting, default=BACKOFF_SECONDS_MAX))

    def take_due(self, page: Page, now: float) -> Groups:
        """Begin an attempt on all messages of a page from ``retry_from`` on whose key is due; return them.

        A key may have become due since the page was chosen. It is left out if its first message is before the
        page: later messages must not overtake the first.
        """
        groups, taken = _by_key(page.rows), Groups()
        end = page.end if page.end is not None and page.end < self.floor else None
        for key, hold in [(key, hold) for key, hold in self._holds.items() if hold.is_due(now)]:
            first_id = hold.first_id
            if first_id is None or first_id < page.from_id or (end is not None and first_id >= end):
                continue
            rows = groups.get(key, [])
            hold.in_flight, hold.first_id = _ids(rows), end
            if rows:
                taken[key] = rows
            elif end is None:
                del self._holds[key]
        return taken

    def finish(self, key: Key, sent: Collection[int], *, failed: bool, now: float) -> None:
        """End the attempt on a key; the messages with these ids were sent and marked."""
        hold = self._holds[key]
        left = hold.in_flight.difference(sent)
        hold.in_flight = frozenset()
        hold.notice(left)
        if failed:
            hold.retry_at = now + hold.backoff.failed()
        elif hold.first_id is None or hold.first_id >= self.floor:
            del self._holds[key]
        else:
            hold.retry_at = now
            hold.backoff.succeeded()

    def abandon(self, now: float) -> None:
        """End all attempts: the outcome of their messages is unknown."""
        for key in [key for key, hold in self._holds.items() if hold.in_flight]:
            self.finish(key, (), failed=False, now=now)

    def check(self, page: Page) -> int:
        """Lower the floor to the first message below it that breaks the invariant; return their number.

        For messages that were put there by hand, or by a writer that breaks the rules.
        """
        broken = 0
        for key, rows in _by_key(row for row in page.rows if row.outbox_id < self.floor).items():
            hold = self._holds.get(key)
            if hold is None:
                broken += len(rows)
                self.floor = min(self.floor, rows[0].outbox_id)
            elif passed := [
                i for i in _ids(rows) - hold.in_flight if hold.first_id is None or i < hold.first_id
            ]:
                broken += len(passed)
                hold.notice(passed)
        return broken

    def _raise_floor(self, page: Page) -> None:
        """Raise the floor to its proven value: every message of the page belongs to a held key by now.

        If a snapshot shows an id, every lower id was given out before, to transactions that had begun to
        write before the snapshot's next transaction. After the end of all of these, no lower id can appear.
        """
        if self._proof is not None:
            highest_id, next_transaction = self._proof
            if page.oldest_running < next_transaction:
                return
            proven = highest_id + 1 if page.end is None else min(highest_id + 1, page.end)
            self.floor, self._proof = max(self.floor, proven), None
        if page.rows:
            self._proof = page.rows[-1].outbox_id, page.next_transaction


def _by_key(rows: Iterable[Unsent]) -> Groups:
    groups: Groups = defaultdict(list)
    for row in rows:
        groups[row.message.topic, partition_of(row.message.topic, row.message.user_id)].append(row)
    return dict(groups)


def _ids(rows: Iterable[Unsent]) -> frozenset[int]:
    return frozenset(row.outbox_id for row in rows)
