"""Monotonic reads: per caller, the version below which no response to the caller may fall.

See docs/adr/0010-what-a-gateway-shows.md.
"""

import time
from collections import OrderedDict
from collections.abc import Callable

from gateway.cache.store import Key

FLOORS_MAX = 100_000


class Floors:
    """A bounded memory of the highest version shown per key.

    A floor lives for ``seconds`` after it was last raised or confirmed: longer than an older entry can stay
    in the store. If the bound forces an early removal, the answer for every unknown key is None ("unknown,
    read the database") until the removed floor would have expired.
    """

    def __init__(
        self, seconds: float, floors_max: int = FLOORS_MAX, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._floors_max = floors_max
        self._clock = clock
        self._floors: OrderedDict[Key, tuple[int, float]] = OrderedDict()
        self._blind_until = 0.0

    def of(self, key: Key) -> int | None:
        """Return the floor, 0 if nothing was shown, None if the floor is no longer known."""
        now = self._clock()
        version, until = self._floors.get(key, (0, 0.0))
        if now < until:
            return version
        return None if now < self._blind_until else 0

    def knows(self, key: Key) -> bool:
        """Say whether the key was shown lately."""
        return key in self._floors

    def show(self, key: Key, version: int) -> None:
        """Remember the version that the caller has seen."""
        now = self._clock()
        kept, until = self._floors.get(key, (0, 0.0))
        self._floors[key] = (max(version, kept) if now < until else version, now + self._seconds)
        self._floors.move_to_end(key)
        self._forget(now)

    def _forget(self, now: float) -> None:
        """Drop expired floors, oldest first; past the bound also valid ones, and be blind for a while."""
        while self._floors:
            oldest, (_, until) = next(iter(self._floors.items()))
            if now < until:
                if len(self._floors) <= self._floors_max:
                    return
                self._blind_until = max(self._blind_until, until)
            del self._floors[oldest]
