"""Attempts to publish: one per partition, and none waits for another."""

import asyncio
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import Counter

from eshop.cancellation import cancel_and_wait
from eshop.relay.backlog import Backlog, Groups, Key
from eshop.relay.publisher import Publisher
from eshop.store.outbox import Sent
from eshop.store.outbox_notifier import OutboxNotifier

logger = logging.getLogger(__name__)

_failed = Counter(
    "eshop_relay_publish_failures_total",
    "Attempts of this process's relay on a partition that failed",
    ["topic"],
)

_Task = asyncio.Task[tuple[list[Sent], Exception | None]]


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that has ended: the messages that every replica has, and the error that stopped it."""

    key: Key
    sent: Sequence[Sent]
    error: Exception | None


class Attempts:
    """Begins, ends and abandons the attempts that a backlog allows."""

    def __init__(self, publisher: Publisher, backlog: Backlog, notifier: OutboxNotifier) -> None:
        self._publisher = publisher
        self._backlog = backlog
        self._notifier = notifier
        self._tasks: dict[Key, _Task] = {}

    @property
    def running(self) -> bool:
        """Whether any attempt is under way or not settled."""
        return bool(self._tasks)

    def begin(self, groups: Groups) -> Mapping[Key, _Task]:
        """Publish each group; return the attempts."""
        begun = {
            key: asyncio.create_task(self._publisher.publish(*key, rows)) for key, rows in groups.items()
        }
        self._tasks |= begun
        return begun

    async def wait(self, attempts: Mapping[Key, _Task], seconds_max: float) -> None:
        """Wait for these; an attempt that runs on notifies when it ends."""
        if attempts:
            await asyncio.wait(attempts.values(), timeout=seconds_max)
        for task in self._tasks.values():
            task.remove_done_callback(self._notify)
            if not task.done():
                task.add_done_callback(self._notify)

    def ended(self) -> list[Attempt]:
        """Return the attempts that have ended and must be settled."""
        return [Attempt(key, *task.result()) for key, task in self._tasks.items() if task.done()]

    def settle(self, ended: Collection[Attempt]) -> None:
        """Tell the backlog about attempts whose messages are marked."""
        now = time.monotonic()
        for attempt in ended:
            del self._tasks[attempt.key]
            sent = {row.outbox_id for row in attempt.sent}
            self._backlog.finish(attempt.key, sent, failed=attempt.error is not None, now=now)
            if attempt.error is not None:
                _failed.labels(attempt.key[0]).inc()
                logger.warning("can't publish to %s/%d for now: %r", *attempt.key, attempt.error)

    async def abandon(self) -> None:
        """Cancel running attempts. Their messages are not marked, and are published again."""
        tasks, self._tasks = self._tasks, {}
        await cancel_and_wait(*tasks.values())
        self._backlog.abandon(time.monotonic())

    def _notify(self, _task: _Task) -> None:
        self._notifier.notify()
