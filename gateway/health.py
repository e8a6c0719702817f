"""Health of a gateway: started, ready, and its dependencies, which are checked in the background.

See docs/adr/0021-a-gateway-that-can-serve-something-is-ready.md.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping

from eshop.cancellation import bounded

#: A dependency that takes longer counts as missing.
CHECK_SECONDS_MAX = 1.0
LOOK_SECONDS = 1.0

Check = Callable[[], Awaitable[object]]


class Health:
    """Dependencies by name, with their last answers.

    Started: each of ``needed`` has answered once. Ready: not stopping, and one of ``serving`` answers, since
    either service gives the gateway something to serve. Other missing dependencies are reported, and take no
    gateway out. ``told`` is called for each dependency at every look.
    """

    def __init__(
        self,
        checks: Mapping[str, Check],
        *,
        needed: Collection[str],
        serving: Collection[str],
        told: Callable[[str, bool], None],
    ) -> None:
        self._checks = checks
        self._told = told
        self._serving = frozenset(serving)
        self._never_up = set(needed)
        self._stopping = False
        self.answers = dict.fromkeys(checks, "not looked at yet")

    @property
    def is_started(self) -> bool:
        """Whether everything needed has answered once."""
        return not self._never_up

    @property
    def is_ready(self) -> bool:
        """Whether requests should be sent here."""
        return not self._stopping and any(self.answers[name] == "ok" for name in self._serving)

    @property
    def is_stopping(self) -> bool:
        """Whether this gateway is stopping."""
        return self._stopping

    def stop(self) -> None:
        """Be unready from now on."""
        self._stopping = True

    async def run(self) -> None:
        """Look at every dependency, again and again, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Look at every dependency at once, for a bounded time."""
        flaws = await asyncio.gather(*(_flaw(check) for check in self._checks.values()))
        for name, flaw in zip(self._checks, flaws, strict=True):
            self.answers[name] = flaw or "ok"
            self._told(name, not flaw)
            if not flaw:
                self._never_up.discard(name)


async def _flaw(check: Check) -> str:
    """Return the fault, in words without addresses; "" if there is none."""
    try:
        await bounded(_ask(check), CHECK_SECONDS_MAX)
    except TimeoutError:
        return f"no answer in {CHECK_SECONDS_MAX:g} s"
    except Exception as error:  # noqa: BLE001  whatever a client library raises, it is not well
        return f"failed: {type(error).__name__}"
    return ""


async def _ask(check: Check) -> None:
    await check()
