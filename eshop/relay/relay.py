"""The relay publishes the outbox, in order, to Kafka. Nobody else sends.

See docs/adr/0004-relay-and-lease.md and docs/adr/0016-what-the-relay-waits-for.md.
"""

import asyncio
import logging
import time
from collections.abc import Iterable
from contextlib import suppress

from aiokafka.errors import KafkaError
from prometheus_client import Counter, Gauge

from eshop.backoff import Backoff
from eshop.cancellation import cancel_and_wait
from eshop.crash_points import crash_point
from eshop.relay.attempts import Attempts
from eshop.relay.backlog import BACKOFF_SECONDS, BACKOFF_SECONDS_MAX, Backlog
from eshop.relay.publisher import Publisher
from eshop.store.database import Database
from eshop.store.faults import TransientFault
from eshop.store.lease import release_lease, renew_lease, take_lease
from eshop.store.outbox import Page, Sent, mark_sent, read_unsent
from eshop.store.outbox_notifier import OutboxNotifier, listen

logger = logging.getLogger(__name__)

#: Short enough that a successor publishes within seconds of a kill.
LEASE_SECONDS = 5.0
RENEW_SECONDS = 1.5
#: A relay that could not renew its lease stops publishing this long before another relay may start.
LEASE_MARGIN_SECONDS = 0.5
#: The safety net under the signals, never the normal path.
SWEEP_SECONDS = 1.0
#: The safety net under the floor: a page below it is read this often.
CHECK_SECONDS = 10.0
#: A partition that takes longer goes on by itself, and the other partitions do not wait.
PATIENCE_SECONDS = 0.5

_published = Counter("eshop_relay_published_total", "Messages published by this process's relay")
_failures = Counter("eshop_relay_failures_total", "Rounds of this process's relay that failed")
_active = Gauge("eshop_relay_active", "1 while this process's relay holds the lease")
_held = Gauge("eshop_relay_held_partitions", "Partitions that this process's relay can't publish to now")


class LeaseLost(Exception):
    """Somebody else is the active relay now, or may be."""


class Relay:
    """A relay of a service. It publishes while it holds the lease, and otherwise waits for the lease.

    A message is marked only after every replica has it; after a crash in between, the successor publishes the
    message again, with the same id. Every wait of a round has a bound.
    """

    def __init__(
        self, database: Database, notifier: OutboxNotifier, publisher: Publisher, holder: str
    ) -> None:
        self._database = database
        self._notifier = notifier
        self._publisher = publisher
        self._holder = holder
        self._backlog = Backlog()
        self._attempts = Attempts(publisher, self._backlog, notifier)
        self._token = 0
        self._held_until = 0.0
        self._backoff = Backoff(BACKOFF_SECONDS, BACKOFF_SECONDS_MAX)
        self._checked_at = 0.0
        self._check_from = 0
        self._stopping = asyncio.Event()
        #: When a round or an attempt at the lease last ended, well or not, by the monotonic clock.
        self.alive_at = time.monotonic()

    @property
    def is_active(self) -> bool:
        """Whether this relay holds the lease."""
        return time.monotonic() < self._held_until

    async def run(self) -> None:
        """Publish until ``stop``, through all faults of Postgres and Kafka."""
        listener = asyncio.create_task(listen(self._database.url, self._notifier))
        try:
            while not self._stopping.is_set():
                try:
                    await self._stand_by()
                except LeaseLost:
                    logger.warning("the outbox is published by another process now")
                except Exception as error:  # noqa: BLE001  it is logged, and the relay goes on
                    await self._failed(error)
        finally:
            await cancel_and_wait(listener)
        await self._release()

    def stop(self) -> None:
        """Have ``run`` end after the current round."""
        self._stopping.set()
        self._notifier.notify()

    async def _failed(self, error: Exception) -> None:
        self.alive_at = time.monotonic()
        is_expected = isinstance(error, (TransientFault, KafkaError, TimeoutError, OSError))
        text = str(error) or repr(error)
        pause = self._backoff.failed()
        logger.warning("the relay waits %.1f s after: %s", pause, text, exc_info=not is_expected)
        _failures.inc()
        await self._pause(pause)

    async def _stand_by(self) -> None:
        """Take the lease and lead, or return after a pause without it."""
        if not self.is_active:
            asked_at = time.monotonic()
            token = await self._database.run_alone(
                lambda session: take_lease(session, self._holder, LEASE_SECONDS)
            )
            self.alive_at = time.monotonic()
            if token is None:
                return await self._pause(SWEEP_SECONDS)
            self._token, self._held_until = token, asked_at + LEASE_SECONDS - LEASE_MARGIN_SECONDS
            logger.info("publishing the outbox, with lease %d", token)
        return await self._lead()

    async def _lead(self) -> None:
        self._notifier.is_heard_here = True
        _active.set(1)
        renewal = asyncio.create_task(self._keep_lease())
        try:
            while not self._stopping.is_set():
                if not self.is_active:
                    raise LeaseLost
                more = await self._round()
                self.alive_at = time.monotonic()
                self._backoff.succeeded()
                if not more:
                    retry = self._backlog.seconds_to_retry(time.monotonic())
                    await self._notifier.wait(min(SWEEP_SECONDS, retry))
        finally:
            self._notifier.is_heard_here = False
            _active.set(0)
            await cancel_and_wait(renewal)
            await self._attempts.abandon()
            await self._publisher.reset()

    async def _keep_lease(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            asked_at = time.monotonic()
            try:
                kept = await self._database.run_alone(
                    lambda session: renew_lease(session, self._token, LEASE_SECONDS)
                )
            except TransientFault as error:
                logger.warning("the lease could not be renewed: %s", error)
                continue
            self._held_until = asked_at + LEASE_SECONDS - LEASE_MARGIN_SECONDS if kept else 0.0
            self._notifier.notify()

    async def _round(self) -> bool:
        """Publish the messages that may leave, and mark the sent ones; return whether more may wait."""
        floor = self._backlog.floor
        page = await self._read(floor)
        retry_from = self._backlog.retry_from(time.monotonic())
        due = None if retry_from is None else await self._read(retry_from)
        if not self.is_active:
            raise LeaseLost
        fresh = self._backlog.take(page)
        again = {} if due is None else self._backlog.take_due(due, time.monotonic())
        if fresh or again:
            await self._publisher.start()
        self._attempts.begin(again)
        await self._attempts.wait(self._attempts.begin(fresh), PATIENCE_SECONDS)
        await self._settle()
        await self._check_below_floor()
        _held.set(len(self._backlog.held))
        is_cut = page.end is not None or (due is not None and due.end is not None)
        return is_cut and bool(fresh or again or self._backlog.floor > floor)

    async def _read(self, from_id: int) -> Page:
        limit = self._backlog.limit
        return await self._database.run_alone(lambda session: read_unsent(session, limit, from_id))

    async def _settle(self) -> None:
        """Mark the messages of ended attempts."""
        ended = self._attempts.ended()
        sent = [row for attempt in ended for row in attempt.sent]
        if sent:
            _published.inc(len(sent))
            crash_point("after-publish-before-mark")
            await self._mark(sent)
            crash_point("after-mark")
        self._attempts.settle(ended)
        if ended and not sent and not self._attempts.running:
            await self._publisher.reset()  # it may be the producer that is broken

    async def _mark(self, sent: Iterable[Sent]) -> None:
        rows = list(sent)
        if not await self._database.run_alone(lambda session: mark_sent(session, rows, self._token)):
            self._held_until = 0.0
            raise LeaseLost

    async def _check_below_floor(self) -> None:
        """Look, page after page, for messages below the floor that should not be there."""
        if time.monotonic() - self._checked_at < CHECK_SECONDS:
            return
        page = await self._read(self._check_from)
        self._checked_at = time.monotonic()
        self._check_from = page.end if page.end is not None and page.end < self._backlog.floor else 0
        if broken := self._backlog.check(page):
            logger.error("%d messages were passed over, and are published now", broken)

    async def _release(self) -> None:
        if self._token and self.is_active:
            with suppress(TransientFault):
                await self._database.run_alone(lambda session: release_lease(session, self._token))
        self._held_until = 0.0

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
