"""The relay: publishes the outbox, in order, to Kafka. Nobody else sends."""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress

from aiokafka.errors import KafkaError
from prometheus_client import Counter, Gauge

from eshop import crash
from eshop.relay.publisher import Publisher
from eshop.store.database import Database
from eshop.store.doorbell import Doorbell, listen
from eshop.store.faults import TransientFault
from eshop.store.lease import release_lease, renew_lease, take_lease
from eshop.store.outbox import Sent, Unsent, mark_sent, read_unsent

logger = logging.getLogger(__name__)

#: Short enough that a successor publishes within seconds of a kill.
LEASE_SECONDS = 5.0
RENEW_SECONDS = 1.5
#: A relay that could not renew stops publishing this long before anyone else may start.
LEASE_MARGIN_SECONDS = 0.5
#: The safety net under the signals, never the normal path.
SWEEP_SECONDS = 1.0
ROWS_MAX = 2_000
BACKOFF_SECONDS = 0.2
BACKOFF_SECONDS_MAX = 5.0

_published = Counter("eshop_relay_published_total", "Messages published by this process's relay")
_failures = Counter("eshop_relay_failures_total", "Rounds of this process's relay that failed")
_active = Gauge("eshop_relay_active", "1 while this process's relay holds the lease")
_oldest = Gauge("eshop_relay_oldest_seconds", "Age of the oldest message of the last round")


class LeaseLost(Exception):
    """Somebody else is the active relay now, or may be."""


class Relay:
    """One of a service's relays. It publishes while it holds the lease, and otherwise waits for it.

    A message is marked only after every replica has it; a crash in between makes its successor publish it
    again, with the same id.
    """

    def __init__(self, database: Database, doorbell: Doorbell, publisher: Publisher, holder: str) -> None:
        self._database = database
        self._doorbell = doorbell
        self._publisher = publisher
        self._holder = holder
        self._token = 0
        self._held_until = 0.0
        self._stopping = asyncio.Event()

    @property
    def is_active(self) -> bool:
        """Whether this relay holds the lease."""
        return time.monotonic() < self._held_until

    async def run(self) -> None:
        """Publish until ``stop``, whatever happens to Postgres or Kafka."""
        delay = BACKOFF_SECONDS
        while not self._stopping.is_set():
            try:
                await self._stand_by()
                delay = BACKOFF_SECONDS
            except LeaseLost:
                logger.warning("the outbox is published by another process now")
            except Exception as error:
                is_expected = isinstance(error, (TransientFault, KafkaError, TimeoutError, OSError))
                text = str(error) or repr(error)
                logger.warning("the relay waits %.1f s after: %s", delay, text, exc_info=not is_expected)
                _failures.inc()
                await self._publisher.reset()
                await self._pause(delay)
                delay = min(delay * 2, BACKOFF_SECONDS_MAX)
        await self._release()

    def stop(self) -> None:
        """Have ``run`` end after the current round."""
        self._stopping.set()
        self._doorbell.ring()

    async def _stand_by(self) -> None:
        """Take the lease, or return after a while without it."""
        if not self.is_active:
            asked_at = time.monotonic()
            token = await self._database.run_alone(
                lambda session: take_lease(session, self._holder, LEASE_SECONDS)
            )
            if token is None:
                return await self._pause(SWEEP_SECONDS)
            self._token, self._held_until = token, asked_at + LEASE_SECONDS - LEASE_MARGIN_SECONDS
            logger.info("publishing the outbox, with lease %d", token)
        return await self._lead()

    async def _lead(self) -> None:
        self._doorbell.answered_here = True
        _active.set(1)
        listener = asyncio.create_task(listen(self._database.url, self._doorbell))
        renewal = asyncio.create_task(self._keep_lease())
        try:
            while not self._stopping.is_set():
                if not self.is_active:
                    raise LeaseLost
                if await self._round() < ROWS_MAX:
                    await self._doorbell.wait(SWEEP_SECONDS)
        finally:
            self._doorbell.answered_here = False
            _active.set(0)
            for task in (listener, renewal):
                task.cancel()
            await asyncio.gather(listener, renewal, return_exceptions=True)

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
            self._doorbell.ring()

    async def _round(self) -> int:
        """Publish what is unsent, up to a bound, and mark what was published; return how many there were."""
        unsent = await self._database.run_alone(lambda session: read_unsent(session, ROWS_MAX))
        if not unsent:
            return 0
        _oldest.set(time.time() - unsent[0].created_at.timestamp())
        if not self.is_active:
            raise LeaseLost
        outcomes = await asyncio.gather(
            *(
                self._publisher.publish(topic, partition, rows)
                for (topic, partition), rows in (await self._by_partition(unsent)).items()
            )
        )
        sent = [row for rows, _ in outcomes for row in rows]
        _published.inc(len(sent))
        crash.reach("after-publish-before-mark")
        await self._mark(sent)
        crash.reach("after-mark")
        for _, error in outcomes:
            if error is not None:
                raise error
        return len(unsent)

    async def _by_partition(self, unsent: Sequence[Unsent]) -> dict[tuple[str, int], list[Unsent]]:
        groups: dict[tuple[str, int], list[Unsent]] = defaultdict(list)
        for row in unsent:
            groups[row.message.topic, await self._publisher.partition_of(row.message)].append(row)
        return groups

    async def _mark(self, sent: Sequence[Sent]) -> None:
        if sent and not await self._database.run_alone(lambda session: mark_sent(session, sent, self._token)):
            self._held_until = 0.0
            raise LeaseLost

    async def _release(self) -> None:
        await self._publisher.reset()
        if self._token and self.is_active:
            with suppress(TransientFault):
                await self._database.run_alone(lambda session: release_lease(session, self._token))
        self._held_until = 0.0

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
