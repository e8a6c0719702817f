"""Which faults a run has, and in what order: decided by its seed."""

import random
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from eshop.contracts.services import SERVICES
from eshop.crash_points import POINTS
from tests.faults.catalogue.clients import Burst, NeverReads
from tests.faults.catalogue.database import Damaged, DiskFull, Flushed, NoConnections, RowHeld, SnapshotHeld
from tests.faults.catalogue.kills import KINDS, CrashPoint, End, Kill, Stop
from tests.faults.catalogue.network import Weather
from tests.faults.catalogue.outages import BrokerAway
from tests.faults.catalogue.topics import MovedAhead, Poison, Replayed
from tests.faults.catalogue.workers import ClockOff, OldWorker, RebalanceStorm
from tests.faults.harness.fault import Fault
from tests.faults.harness.links import Mode

#: How often each kind is killed at random: workers more often than their dependencies.
KILL_WEIGHTS = {
    "orders": 5,
    "payments": 5,
    "gateway": 3,
    "projections": 1,
    "kafka": 2,
    "postgres": 2,
    "valkey": 1,
}
VOLLEY_MAX = 3
AWAYS = (Mode.CLOSED, Mode.CUT, Mode.RESET)
#: How long the broker is away in the repetitions, and once for each way of being away.
OUTAGE_SECONDS = (5.0, 20.0)
LONG_OUTAGE_SECONDS = (60.0, 600.0)
OUTAGE_TIMES = 20
OUTAGE_RECOVERY_SECONDS_MAX = 30.0
#: What waits after ten minutes must drain in seconds on a small machine.
OUTAGE_ORDERS_PER_SECOND = 4.0
#: Failed rounds that show a relay that hangs in one of a hundred. A silent broker fails nothing for long.
SHORT_OUTAGE_ROUNDS = {Mode.CLOSED: 120, Mode.CUT: 0, Mode.RESET: 120}
#: What takes longer the longer the topics are comes early.
EARLY_SHARE = 0.3


@dataclass(frozen=True)
class Plan:
    """What a run does: each of ``faults`` once, and random kills between them until there are enough."""

    seed: int
    minutes: float
    orders: int
    kills: int
    faults: Sequence[Fault]
    #: What 95 % of the recoveries may take, and what every one may.
    recovery_seconds: tuple[float, float] = (15.0, 30.0)
    #: A run that falls behind goes on for at most this multiple of its minutes.
    overtime: float = 1.25
    #: What the report is about.
    chapter: str = "faults"
    #: Whether messages must have been published and delivered twice in the end.
    is_repeating: bool = True
    #: Whether the relays try again sooner than they do for a user.
    is_hurried: bool = False

    @property
    def orders_per_second(self) -> float:
        """The rate of the load, with some time to spare for when nothing goes."""
        return self.orders / (self.minutes * 60 * 0.85)


def crash_points() -> list[Fault]:
    """Return a fault for every crash point."""
    return [CrashPoint(kind, point) for point in POINTS for kind in SERVICES]


def tidy_ends() -> list[Fault]:
    """Return every process's end by the signal that asks for it."""
    asked = [End(kind) for kind in KINDS if kind != "postgres"]
    # SIGTERM lets Postgres wait until everybody has gone, which nobody does.
    return [*asked, End("postgres", signal.SIGINT), End("postgres", signal.SIGQUIT)]


def weathers() -> list[Fault]:
    """Return every link in bad weather, each in a few kinds."""
    return [
        Weather(("orders", "postgres"), Mode.CUT),
        Weather(("orders", "postgres"), Mode.SLOW),
        Weather(("payments", "postgres"), Mode.ONE_WAY),
        Weather(("payments", "postgres"), Mode.LOSSY),
        Weather(("gateways", "valkey"), Mode.CUT, 6),
        Weather(("gateways", "valkey"), Mode.SLOW, 6),
        Weather(("gateways", "orders"), Mode.CUT),
        Weather(("gateways", "orders"), Mode.LOSSY, 8),
        Weather(("gateways", "payments"), Mode.ONE_WAY),
        Weather(("everybody", "kafka"), Mode.CUT),
        Weather(("everybody", "kafka"), Mode.ONE_WAY),
        Weather(("everybody", "kafka"), Mode.SLOW, 8),
        Weather(("everybody", "kafka"), Mode.LOSSY, 8),
    ]


def damages() -> list[Fault]:
    """Return what an operator or a deployment can do to a database, and take back."""
    return [
        Damaged(
            "a grant revoked",
            "payments",
            "REVOKE INSERT ON payments FROM payments_app",
            "GRANT INSERT ON payments TO payments_app",
        ),
        Damaged(
            "a column missing",
            "orders",
            "ALTER TABLE order_history RENAME COLUMN reason TO reason_away",
            "ALTER TABLE order_history RENAME COLUMN reason_away TO reason",
        ),
    ]


def everything() -> list[Fault]:
    """Return each fault of the suite once."""
    return [
        *crash_points(),
        *tidy_ends(),
        *(Stop(kind) for kind in KINDS),
        *weathers(),
        *damages(),
        RowHeld(),
        SnapshotHeld(),
        *(SnapshotHeld(service) for service in SERVICES),
        NoConnections(),
        Flushed(),
        DiskFull(),
        *(Replayed(service) for service in SERVICES),
        *(MovedAhead(service) for service in SERVICES),
        *(Poison(service) for service in SERVICES),
        *(RebalanceStorm(service) for service in SERVICES),
        *(ClockOff(service) for service in SERVICES),
        *(OldWorker(service) for service in SERVICES),
        Burst(),
        NeverReads(),
    ]


def soak(seed: int, minutes: float, orders: int, kills: int, only: Sequence[str] = ()) -> Plan:
    """Return the whole suite, or those faults of it whose names have one of ``only`` in them."""
    rng = random.Random(seed)
    faults = [fault for fault in everything() if not only or any(part in fault.name for part in only)]
    at = {fault.name: rng.random() * (EARLY_SHARE if isinstance(fault, Replayed) else 1) for fault in faults}
    return Plan(seed, minutes, orders, kills, sorted(faults, key=lambda fault: at[fault.name]))


def short(seed: int) -> Plan:
    """Return the part of the suite that every test run has."""
    rng = random.Random(seed)
    points = crash_points()
    rng.shuffle(points)
    others: list[Fault] = [
        Kill("kafka"),
        Kill("postgres", "valkey"),
        Stop("payments"),
        Poison("payments"),
        Replayed("payments"),
        MovedAhead("orders"),
        Weather(("orders", "postgres"), Mode.CUT, 8),
    ]
    rng.shuffle(others)
    # It may run on a busy machine: what it says about time is only that nothing waits for ever.
    return Plan(seed, 3.0, 6_000, len(points) + 3, [*others, *points], (90.0, 90.0), overtime=3.0)


def outages(seed: int, times: int, long: Sequence[float], only: Sequence[str] = ()) -> Plan:
    """Return outages of the broker: a number of short ones, and each long one in each of its ways to be away.

    Of these, those whose names have one of ``only`` in them.
    """
    rng = random.Random(seed)
    faults = [BrokerAway(AWAYS[number % len(AWAYS)], OUTAGE_SECONDS) for number in range(times)]
    rng.shuffle(faults)
    faults += [BrokerAway(mode, (seconds, seconds)) for seconds in long for mode in AWAYS]
    faults = [fault for fault in faults if not only or any(part in fault.name for part in only)]
    away = sum(fault.seconds for fault in faults)
    minutes = (away + len(faults) * OUTAGE_RECOVERY_SECONDS_MAX / 2) / 60
    return Plan(
        seed,
        minutes,
        orders=round(away * OUTAGE_ORDERS_PER_SECOND),
        kills=0,
        faults=faults,
        recovery_seconds=(OUTAGE_RECOVERY_SECONDS_MAX, OUTAGE_RECOVERY_SECONDS_MAX),
        overtime=3.0,
        chapter="outages",
        is_repeating=False,
    )


def short_outages(seed: int) -> Plan:
    """Return the outages that every test run has: one in each way, with the failed rounds of a long one."""
    faults = [BrokerAway(mode, (3.0, 5.0), failed_rounds=SHORT_OUTAGE_ROUNDS[mode]) for mode in AWAYS]
    random.Random(seed).shuffle(faults)
    return Plan(
        seed,
        0.5,
        orders=100,
        kills=0,
        faults=faults,
        # It may run on a busy machine, as ``short``.
        recovery_seconds=(90.0, 90.0),
        overtime=12.0,
        chapter="outages",
        is_repeating=False,
        is_hurried=True,
    )


def volley(rng: random.Random, count: int) -> Kill:
    """Return a SIGKILL of a number of processes at once, chosen by chance."""
    kinds = rng.choices(list(KILL_WEIGHTS), list(KILL_WEIGHTS.values()), k=count)
    # A kind has at most two processes, and what there is one of is killed once.
    limits = {"orders": 2, "payments": 2, "gateway": 2}
    chosen: list[str] = []
    for kind in kinds:
        if chosen.count(kind) < limits.get(kind, 1):
            chosen.append(kind)
    return Kill(*sorted(chosen))
