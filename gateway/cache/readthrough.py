"""Reading through the cache: never below a floor, never slower than its bound, never dependent on it."""

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

#: Above this the cache costs more than it saves.
CALL_SECONDS_MAX = 0.05
#: So many failures in a row open the breaker, for so long on the average.
BREAKER_FAILURES = 3
BREAKER_OPEN_SECONDS = 2.0
#: No entry may live longer: floors outlive entries, and stand on this.
TTL_SECONDS_MAX = 60
#: An older entry can be written late, by a reader slow by at most a minute, and then lives its time.
FLOOR_SECONDS = 2.0 * TTL_SECONDS_MAX

logger = logging.getLogger(__name__)


class Outcome(StrEnum):
    """What became of a look into the cache."""

    HIT = "hit"
    MISS = "miss"
    #: An entry was there, but the caller has seen newer; or what was seen is not known any more.
    BELOW_FLOOR = "below_floor"
    #: Down, slow, or the breaker was open.
    BYPASS = "bypass"


@dataclass(frozen=True, slots=True)
class Fresh:
    """What the database says: a rendered thing, its version, and for how long others may be shown it."""

    version: int
    body: bytes
    ttl_seconds: int


@dataclass(frozen=True, slots=True)
class Reading:
    """An answer. ``age_seconds`` is None where it comes from the database."""

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
        """Return the thing at a version not below what this caller has seen nor below ``at_least``.

        The answer counts as shown from here on. What ``load`` raises goes to the caller.
        """
        entry = await self._look(key, at_least)
        if entry is not None:
            self.floors.show(key, entry.version)
            return Reading(entry.version, entry.body, max(0, int(time.time() - entry.stored_at)))
        fresh = await load()
        if fresh.version < (self.floors.of(key) or 0):
            # Another request of this caller has been shown newer meanwhile: a read begun now sees it too.
            fresh = await load()
        self.floors.show(key, fresh.version)
        await self.put(key, fresh)
        return Reading(fresh.version, fresh.body, None)

    async def put(self, key: Key, fresh: Fresh) -> None:
        """Offer what is known to be true to all readers; failing is fine."""
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
        # Only now, because it may have risen while the store was asked.
        floor = self.floors.of(key)
        if floor is None or entry.version < max(floor, at_least):
            return Outcome.BELOW_FLOOR, None
        return Outcome.HIT, entry

    @asynccontextmanager
    async def _bounded(self) -> AsyncIterator[None]:
        """Bound a call to the store; raise CacheDown where it fails, is slow, or did so too often lately."""
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
