"""What a fault has to do with: the shop, its customers, chance; and what it tells of itself."""

import random
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import aiohttp

from tests.faults.harness.feeds import Listener
from tests.faults.harness.load import Answers, Load
from tests.faults.harness.probe import Probe
from tests.faults.harness.world import World

#: A worker that is away for longer has lost its session (6 s) and its lease (5 s).
AWAY_SECONDS = 12.0


@dataclass
class Scene:
    """A shop with its customers."""

    world: World
    session: aiohttp.ClientSession
    probe: Probe
    load: Load
    answers: Answers
    listeners: list[Listener]
    rng: random.Random
    per_second: float


@dataclass(frozen=True)
class Fired:
    """A fault that is over. ``victims`` are processes, and their ids, that must come back by themselves.

    The clock of its recovery runs from ``ended_at``: for a kill that is the kill itself. Where others were to
    take over while it lasted, ``taken_over_seconds`` is how long that took, and counts if it is longer.
    """

    victims: tuple[tuple[str, int], ...] = ()
    kills: int = 0
    evidence: str = ""
    taken_over_seconds: float = 0.0
    ended_at: float = field(default_factory=time.monotonic)


class Fault(ABC):
    """Something that goes wrong. ``name`` is its row in the table."""

    name: str
    #: Whether its recovery counts. It does not where work is asked for that takes its time.
    is_timed: bool = True
    #: Later than that something does not come back by itself at all.
    recovery_seconds_max: float = 90.0

    def missing(self, _world: World) -> str | None:
        """Return why it can't happen on this machine."""
        return None

    @abstractmethod
    async def fire(self, scene: Scene) -> Fired:
        """Let it happen, and return when it is over; raise NotShown where it did not happen."""
