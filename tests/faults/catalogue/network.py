"""The network between two parts: cut, one-way, slow, lossy."""

import asyncio

from tests.faults.harness.fault import AWAY_SECONDS, Fault, Fired, Scene
from tests.faults.harness.links import Mode
from tests.faults.harness.world import NotShown

WORDS = {Mode.CUT: "cut", Mode.ONE_WAY: "one-way", Mode.SLOW: "slow", Mode.LOSSY: "lossy"}


class Weather(Fault):
    """A link that is worse than it was, for a while. ``between`` begins or ends a link's name."""

    def __init__(self, between: tuple[str, str], mode: Mode, seconds: float = AWAY_SECONDS) -> None:
        left, right = between
        self.name = f"network {left} to {right} {WORDS[mode]}"
        self._left, self._right = left, right
        self._mode = mode
        self._seconds = seconds

    async def fire(self, scene: Scene) -> Fired:
        world = scene.world
        link = scene.rng.choice([link for link in await world.tell("links") if self._is_meant(link)])
        before = await world.tell("mode", link=link, mode=Mode.OPEN)
        if not before["connections"]:
            raise NotShown(f"nobody speaks over {link}")
        async with world.weather([link], self._mode):
            await asyncio.sleep(self._seconds)
            after = await world.tell("mode", link=link, mode=self._mode)
        carried = after["bytes"] - before["bytes"]
        if not carried and self._mode is not Mode.CUT:
            raise NotShown(f"nothing went over {link}")
        told = f"{link}, {self._seconds:.0f} s, {before['connections']} connections, {carried} bytes"
        return Fired(evidence=told)

    def _is_meant(self, link: str) -> bool:
        if link == "kafka":
            return self._right == "kafka"
        left, _, right = link.partition(">")
        return left.startswith(self._left.removesuffix("s")) and right.startswith(self._right)
