"""The read-through cache: never below a floor, never slower than its bound, never required."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum

from gateway.breaker import Breaker, CircuitOpen
from gateway.cache.floors import Floors
from gateway.cache.store import CacheDown, Entry, Key, VersionedStore

#: Above this time the cache costs more than it saves.
CALL_SECONDS_MAX = 0.05
#: Failures in a row that open the breaker, and the mean time for which it is open.
BREAKER_FAILURES = 3
BREAKER_OPEN_SECONDS = 2.0
#: The longest life of an entry: floors outlive entries.
TTL_SECONDS_MAX = 60
#: An older entry can be written late, by a reader slow by at most a minute, and then lives its time.
FLOOR_SECONDS = 2.0 * TTL_SECONDS_MAX

logger = logging.getLogger(__name__)


class Outcome(StrEnum):
    """The outcome of a look into the cache."""

    HIT = "hit"
    MISS = "miss"
    #: There was an entry, but the caller has seen a newer version, or the floor is no longer known.
    BELOW_FLOOR = "below_floor"
    #: Down, slow, or the breaker was open.
    BYPASS = "bypass"


@dataclass(frozen=True, slots=True)
class Fresh:
    """The database's answer: a rendered object, its version, and the time for which it may be cached."""

    version: int
    body: bytes
    ttl_seconds: int


@dataclass(frozen=True, slots=True)
class Reading:
    """A response. ``age_seconds`` is None if it comes from the database."""

    version: int
    body: bytes
    age_seconds: int | None


Load = Callable[[], Awaitable[Fresh]]


class ReadThrough:
    """Entries by key over a store, with the floors of this gateway's callers."""

    def __init__(
        self,
        store: VersionedStore,
        count: Callable[[Outcome], None],
        floors: Floors | None = None,
        call_seconds_max: float = CALL_SECONDS_MAX,
    ) -> None:
        self.floors = Floors(FLOOR_SECONDS) if floors is None else floors
        self._store = store
        self._count = count
        self._call_seconds_max = call_seconds_max
        self._breaker = Breaker(BREAKER_FAILURES, BREAKER_OPEN_SECONDS, _say)

    async def read(self, key: Key, load: Load, at_least: int = 0) -> Reading:
        """Return the object at a version not below the caller's floor nor below ``at_least``.

        The response counts as shown from here on. Errors of ``load`` go to the caller.
        """
        entry = await self._look(key, at_least)
        if entry is not None:
            self.floors.show(key, entry.version)
            return Reading(entry.version, entry.body, max(0, int(time.time() - entry.stored_at)))
        fresh = await load()
        if fresh.version < (self.floors.of(key) or 0):
            # Meanwhile another request of this caller was shown a newer version: a read that begins now
            # returns it, too.
            fresh = await load()
        self.floors.show(key, fresh.version)
        await self.put(key, fresh)
        return Reading(fresh.version, fresh.body, None)

    async def put(self, key: Key, fresh: Fresh) -> None:
        """Offer a confirmed version to all readers; failure is harmless."""
        entry = Entry(fresh.version, fresh.body, time.time())
        with suppress(CacheDown):
            async with self._bounded():
                await self._store.put(key, entry, min(fresh.ttl_seconds, TTL_SECONDS_MAX))

    async def _look(self, key: Key, at_least: int) -> Entry | None:
        outcome, entry = await self._judged(key, at_least)
        self._count(outcome)
        return entry

    async def _judged(self, key: Key, at_least: int) -> tuple[Outcome, Entry | None]:
        if self.floors.of(key) is None:
            return Outcome.BELOW_FLOOR, None
        try:
            async with self._bounded():
                entry = await self._store.get(key)
        except CacheDown:
            return Outcome.BYPASS, None
        if entry is None:
            return Outcome.MISS, None
        # Only now, because the floor may have risen during the store's call.
        floor = self.floors.of(key)
        if floor is None or entry.version < max(floor, at_least):
            return Outcome.BELOW_FLOOR, None
        return Outcome.HIT, entry

    @asynccontextmanager
    async def _bounded(self) -> AsyncIterator[None]:
        """Bound a call to the store; raise CacheDown if it fails, is slow, or did so too often lately."""
        try:
            with self._breaker.call(_is_failure):
                async with asyncio.timeout(self._call_seconds_max):
                    yield
        except (CircuitOpen, TimeoutError) as error:
            raise CacheDown("down or slow") from error


def _is_failure(error: Exception) -> bool:
    return isinstance(error, CacheDown | TimeoutError)


def _say(is_open: bool) -> None:
    if is_open:
        logger.warning("the cache is bypassed: it fails or is slow")
