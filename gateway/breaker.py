"""A circuit breaker: after repeated failures calls are refused for a while, and then probed by one call.

See docs/adr/0021-a-gateway-that-can-serve-something-is-ready.md.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: The spread of an open time around its mean, so that many processes do not probe at the same moment.
JITTER = 0.5


class CircuitOpen(Exception):
    """The call was not made. ``retry_after_seconds`` is the time until the next probe."""

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__("the circuit is open")
        self.retry_after_seconds = retry_after_seconds


class Breaker:
    """Closed, open, half-open: a breaker per callee.

    ``failures_max`` failures without a success between them open it, for ``open_seconds`` on average. Then it
    is half-open: one call probes, and all others are refused until the probe's end. A success closes it.
    Failures within ``apart_seconds`` of the last counted failure count as the same: a connection that breaks
    fails all of its calls. ``changed`` is called with True when the breaker opens, with False when it closes.
    """

    def __init__(
        self,
        failures_max: int,
        open_seconds: float,
        changed: Callable[[bool], None],
        *,
        apart_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._failures_max = failures_max
        self._open_seconds = open_seconds
        self._changed = changed
        self._apart_seconds = apart_seconds
        self._clock = clock
        self._failures = 0
        self._counted_at = float("-inf")
        self._open_until: float | None = None
        self._probing = False

    @contextmanager
    def call(self, is_failure: Callable[[Exception], bool]) -> Iterator[None]:
        """Run the body, which makes the call; raise CircuitOpen instead if the circuit is open.

        An exception that is no failure counts as an answer, hence as a success. A cancelled body is neither.
        """
        is_probe = self._admit()
        try:
            yield
        except Exception as error:
            if is_failure(error):
                self._fail(is_probe=is_probe)
            else:
                self._succeed()
            raise
        else:
            self._succeed()
        finally:
            if is_probe:
                self._probing = False

    def _admit(self) -> bool:
        """Tell whether this call is a probe; raise CircuitOpen."""
        if self._open_until is None:
            return False
        left = self._open_until - self._clock()
        if left > 0 or self._probing:
            raise CircuitOpen(max(left, 0.0))
        self._probing = True
        return True

    def _succeed(self) -> None:
        self._failures = 0
        if self._open_until is not None:
            self._open_until = None
            self._changed(False)

    def _fail(self, *, is_probe: bool) -> None:
        now = self._clock()
        if self._open_until is not None:
            # The late failure of a call from before the opening has no further effect.
            if is_probe:
                self._open(now)
            return
        if now - self._counted_at < self._apart_seconds:
            return
        self._counted_at = now
        self._failures += 1
        if self._failures >= self._failures_max:
            self._open(now)
            self._changed(True)

    def _open(self, now: float) -> None:
        self._open_until = now + self._open_seconds * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
