"""The store's fake: in memory, for unit tests."""

import time
from collections.abc import Callable

from gateway.cache.store import CacheDown, Entry, Key


class MemoryStore:
    """Behaves like the real store, as the conformance suite shows. ``down`` makes every call fail."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[Key, tuple[Entry, float]] = {}
        self.down = False

    async def get(self, key: Key) -> Entry | None:
        """Return the entry unless it has expired."""
        self._must_be_up()
        entry, until = self._kept.get(key, (None, 0.0))
        return entry if self._clock() < until else None

    async def put(self, key: Key, entry: Entry, ttl_seconds: int) -> bool:
        """Keep the entry if it is newer."""
        kept = await self.get(key)
        if kept is not None and kept.version >= entry.version:
            return False
        self._kept[key] = (entry, self._clock() + ttl_seconds)
        return True

    async def ping(self) -> None:
        """Fail if ``down`` is set."""
        self._must_be_up()

    async def close(self) -> None:
        """Forget everything."""
        self._kept.clear()

    def _must_be_up(self) -> None:
        if self.down:
            raise CacheDown("told to be down")
