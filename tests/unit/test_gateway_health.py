"""When a gateway has started, when it is ready, and that a look at its dependencies always ends."""

import asyncio

import pytest

from gateway import health as health_module
from gateway.health import Health


class Dependencies:
    """Three of them, each of which answers, fails or is silent."""

    def __init__(self) -> None:
        self.away: dict[str, str] = {}
        self.told: dict[str, bool] = {}
        names = ("orders", "payments", "kafka", "redis")
        self.health = Health(
            {name: lambda name=name: self._check(name) for name in names},  # type: ignore[misc]
            needed=names[:3],
            serving=names[:2],
            told=self.told.__setitem__,
        )

    async def _check(self, name: str) -> None:
        match self.away.get(name):
            case "failing":
                raise ConnectionError("an address nobody should read")
            case "silent":
                await asyncio.Event().wait()
            case "deaf":
                # As a library does that swallows a cancellation.
                for _ in range(3):
                    try:
                        await asyncio.sleep(0.2)
                    except asyncio.CancelledError:
                        continue

    async def look(self, **away: str) -> tuple[bool, bool]:
        self.away = away
        await self.health.look()
        return self.health.is_started, self.health.is_ready


async def test_nothing_is_known_before_the_first_look() -> None:
    health = Dependencies().health
    assert (health.is_started, health.is_ready) == (False, False)


async def test_it_has_started_once_each_has_answered_and_for_good() -> None:
    shop = Dependencies()
    assert await shop.look(kafka="failing", orders="failing") == (False, True)
    assert await shop.look(payments="failing") == (True, True)
    assert await shop.look(kafka="failing", redis="failing") == (True, True)


async def test_the_cache_is_not_needed_for_the_start() -> None:
    assert await Dependencies().look(redis="failing") == (True, True)


@pytest.mark.parametrize("how", ["failing", "silent", "deaf"])
async def test_one_service_is_enough_to_be_ready(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "CHECK_SECONDS_MAX", 0.05)
    shop = Dependencies()
    async with asyncio.timeout(5):
        assert await shop.look(orders=how, kafka=how, redis=how) == (False, True)
        assert await shop.look(orders=how, payments=how) == (False, False)
    assert shop.told == {"orders": False, "payments": False, "kafka": True, "redis": True}
    said = {"failing": "failed: ConnectionError"}.get(how, "no answer in 0.05 s")
    assert shop.health.answers == {"orders": said, "payments": said, "kafka": "ok", "redis": "ok"}


async def test_who_leaves_is_not_ready_whatever_answers() -> None:
    shop = Dependencies()
    shop.health.stop()
    assert await shop.look() == (True, False)
