"""For every sequence of transactions, reads, attempts and failures: the backlog loses nothing, and no user's
messages overtake each other.

The machine is an outbox as Postgres shows it: ids are given out in order, transactions of different users
commit in any order, and a snapshot shows what was committed before it.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from eshop.contracts.topics import ORDERS_EVENTS
from eshop.relay import backlog as backlogs
from eshop.relay.backlog import Backlog, Key
from eshop.relay.placement import partition_of
from eshop.store.outbox import Outgoing, Page, Unsent

TOPIC = ORDERS_EVENTS.name
#: Two of them share a partition.
USERS = ("ann", "bob", "cat", "dan")
ROWS_MAX, HELD_ROWS_MAX = 3, 2
SOME_TIME = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Transaction:
    """An open transaction: its number, whose rows it has locked, and what it has written."""

    number: int
    users: list[str]
    written: list[tuple[int, str]] = field(default_factory=list)


class Outbox(RuleBasedStateMachine):
    """One relay's backlog beside any number of writers, and now and then another relay."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(backlogs, "ROWS_MAX", ROWS_MAX)
        self.patch.setattr(backlogs, "HELD_ROWS_MAX", HELD_ROWS_MAX)
        self.patch.setattr(
            backlogs, "partition_of", lambda _topic, user: {"ann": 0, "bob": 0, "cat": 1, "dan": 2}[user]
        )
        self.next_id, self.next_transaction, self.now = 1, 1, 0.0
        self.open: list[Transaction] = []
        self.committed: dict[int, str] = {}
        self.marked: set[int] = set()
        self.log: list[int] = []
        self.backlog = Backlog()
        self.attempts: dict[Key, list[Unsent]] = {}

    def teardown(self) -> None:
        """Let everything end and every attempt succeed: nothing is left."""
        try:
            while self.open:
                self._end(self.open.pop(), commits=True)
            for _ in range(20 + 4 * len(self.committed)):
                self.now += 100
                for key in list(self.attempts):
                    self._finish(key, len(self.attempts[key]), failed=False)
                self._round()
            for key in list(self.attempts):
                self._finish(key, len(self.attempts[key]), failed=False)
            assert self.marked == set(self.committed), "nothing is left"
            assert not self.backlog.held
            assert self.backlog.floor <= max(self.committed, default=-1) + 1
            assert self.backlog.check(self._page(0, 1_000)) == 0
        finally:
            self.patch.undo()

    @rule(users=st.lists(st.sampled_from(USERS), min_size=1, max_size=2, unique=True))
    def begin(self, users: list[str]) -> None:
        """Lock users that nobody has locked."""
        free = [user for user in users if not any(user in open_.users for open_ in self.open)]
        if free:
            self.open.append(Transaction(self.next_transaction, free))
            self.next_transaction += 1

    @precondition(lambda self: self.open)
    @rule(place=st.integers(0, 9), count=st.integers(1, 3))
    def append(self, place: int, count: int) -> None:
        """Write messages of the users that are locked."""
        writer = self.open[place % len(self.open)]
        for number in range(count):
            writer.written.append((self.next_id, writer.users[number % len(writer.users)]))
            self.next_id += 1

    @precondition(lambda self: self.open)
    @rule(place=st.integers(0, 9), commits=st.booleans() | st.just(True))
    def end(self, place: int, commits: bool) -> None:
        """Commit or roll back."""
        self._end(self.open.pop(place % len(self.open)), commits)

    def _end(self, writer: Transaction, commits: bool) -> None:
        if commits:
            self.committed |= dict(writer.written)

    @rule(
        between=st.booleans(),
        pause=st.sampled_from((0.0, 0.3, 20.0)),
        reading=st.sampled_from((0.0, 0.15, 0.3, 20.0)),
    )
    def round(self, between: bool, pause: float, reading: float) -> None:
        """Begin attempts; maybe somebody commits between the two reads. Reading takes a time, too."""
        self.now += pause
        self._round(between, reading)

    @precondition(lambda self: self.attempts)
    @rule(place=st.integers(0, 9), sent=st.integers(0, 3), lost=st.integers(0, 3), failed=st.booleans())
    def finish(self, place: int, sent: int, lost: int, failed: bool) -> None:
        """End an attempt; of a failed one, some messages may be in the log and nobody knows."""
        key = sorted(self.attempts)[place % len(self.attempts)]
        rows = self.attempts[key]
        count = min(sent, len(rows)) if failed else len(rows)
        self._finish(key, count, failed=failed and count < len(rows), lost=lost)

    @rule()
    def lose_the_lease(self) -> None:
        """Abandon what is under way."""
        self.attempts.clear()
        self.backlog.abandon(self.now)

    @precondition(lambda self: not self.attempts)
    @rule()
    def other_relay(self) -> None:
        """Have another relay publish everything that is committed."""
        for outbox_id in sorted(self.committed.keys() - self.marked):
            self._log(outbox_id)
            self.marked.add(outbox_id)

    def _round(self, between: bool = False, reading: float = 0.0) -> None:
        page = self._page(self.backlog.floor, self.backlog.limit)
        if between and self.open:
            self._end(self.open.pop(0), commits=True)
        retry_from = self.backlog.retry_from(self.now)
        due = None if retry_from is None else self._page(retry_from, self.backlog.limit)
        self.now += reading
        begun = self.backlog.take(page)
        if due is not None:
            begun |= self.backlog.take_due(due, self.now)
        assert not begun.keys() & self.attempts.keys(), "one attempt at a time"
        self.attempts |= begun

    def _page(self, from_id: int, limit: int) -> Page:
        ids = sorted(i for i in self.committed if i >= from_id and i not in self.marked)
        end = ids[limit - 1] + 1 if len(ids) >= limit else None
        rows = [_row(i, self.committed[i]) for i in ids[:limit]]
        oldest = min((writer.number for writer in self.open), default=self.next_transaction)
        return Page(from_id, rows, end, oldest, self.next_transaction)

    def _finish(self, key: Key, count: int, *, failed: bool, lost: int = 0) -> None:
        rows = self.attempts.pop(key)
        for row in rows[: count + lost]:
            self._log(row.outbox_id)
        sent = {row.outbox_id for row in rows[:count]}
        self.marked |= sent
        self.backlog.finish(key, sent, failed=failed, now=self.now)

    def _log(self, outbox_id: int) -> None:
        """Write to the log; whatever the user committed before must be there."""
        user = self.committed[outbox_id]
        before = {i for i, owner in self.committed.items() if owner == user and i < outbox_id}
        assert before <= set(self.log), f"{outbox_id} of {user} overtook {before - set(self.log)}"
        self.log.append(outbox_id)

    @invariant()
    def nothing_is_passed_over(self) -> None:
        """Below the floor there is nothing that the backlog does not know, or that may yet come."""
        assert all(i >= self.backlog.floor for writer in self.open for i, _ in writer.written)
        assert self.backlog.check(self._page(0, 1_000)) == 0


def _row(outbox_id: int, user: str) -> Unsent:
    return Unsent(outbox_id, str(outbox_id), SOME_TIME, Outgoing(TOPIC, user, "", "", "", "", "", "", ""))


TestOutbox: Any = Outbox.TestCase
TestOutbox.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)


def test_pages_are_read_from_the_floor_and_a_held_partition_does_not_fill_them() -> None:
    """A million messages for one partition: after its first pages the floor is behind them."""
    backlog, per_page, count = Backlog(), backlogs.ROWS_MAX, 20_000
    rows = [_row(number, "ann") for number in range(1, count + 1)] + [_row(count + 1, "bob")]
    assert partition_of(TOPIC, "ann") != partition_of(TOPIC, "bob")
    begun: dict[Key, list[Unsent]] = {}
    pages = 0
    while (TOPIC, partition_of(TOPIC, "bob")) not in begun:
        unread = [row for row in rows if row.outbox_id >= backlog.floor]
        taken = unread[: backlog.limit]
        end = taken[-1].outbox_id + 1 if len(taken) == backlog.limit else None
        begun |= backlog.take(Page(backlog.floor, taken, end, 10, 10))
        pages += 1
    assert pages <= count / per_page + 2
    assert backlog.floor > count - backlog.limit
