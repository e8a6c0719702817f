"""Liveness and readiness: what this gateway stands on, one line each."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

CHECK_SECONDS_MAX = 1.0
#: However often it is asked, dependencies are looked at no more often than this.
FRESH_SECONDS = 1.0

Check = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Report:
    """Readiness at a moment. ``lines`` say what each dependency is like."""

    ready: bool
    lines: tuple[str, ...]


class Health:
    """Dependencies by name. Without a needed one we are not ready; without another we are only slower."""

    def __init__(self, needed: Mapping[str, Check], useful: Mapping[str, Check]) -> None:
        self._needed = needed
        self._useful = useful
        self._report = Report(ready=False, lines=())
        self._until = 0.0
        self._looking = asyncio.Lock()

    async def report(self) -> Report:
        """Look at every dependency at once, each for a bounded time."""
        async with self._looking:
            if time.monotonic() >= self._until:
                self._report = await self._look()
                self._until = time.monotonic() + FRESH_SECONDS
            return self._report

    async def _look(self) -> Report:
        names = [*self._needed, *self._useful]
        checks = [*self._needed.values(), *self._useful.values()]
        flaws = dict(zip(names, await asyncio.gather(*map(_flaw, checks)), strict=True))
        lines = tuple(
            f"{name}: {flaw or 'ok'}{'' if not flaw or name in self._needed else ' (not needed)'}"
            for name, flaw in flaws.items()
        )
        return Report(not any(flaws[name] for name in self._needed), lines)


async def _flaw(check: Check) -> str:
    """Return what is wrong, in words without addresses; "" for nothing."""
    try:
        async with asyncio.timeout(CHECK_SECONDS_MAX):
            await check()
    except TimeoutError:
        return "no answer in time"
    except Exception as error:  # noqa: BLE001  whatever a client library raises, it is not well
        return f"failed ({type(error).__name__})"
    return ""
