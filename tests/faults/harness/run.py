"""One run from beginning to end: open, order, hurt, measure, come to rest, audit."""

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import uvloop
from rich.console import Console

from tests.faults.harness import judge
from tests.faults.harness.fault import Fault, Fired, Scene
from tests.faults.harness.feeds import Listener
from tests.faults.harness.load import Answers, Load
from tests.faults.harness.probe import Probe
from tests.faults.harness.report import Happened, Report
from tests.faults.harness.world import NotShown, World, a_world
from tests.faults.plan import VOLLEY_MAX, Plan, volley

LISTENERS = 40
WARM_SECONDS = 5.0
FIRST_SERVED_SECONDS_MAX = 60.0
PAUSE_SECONDS_MAX = 6.0

#: A table of many columns is cut by a terminal that does not say how wide it is.
console = Console(highlight=False, width=160) if not Console().is_terminal else Console(highlight=False)


async def run(plan: Plan, keep_logs: Path | None = None) -> Report:
    """Run a plan on a shop of its own; what keeps it from proving anything is in the report's failures."""
    report = Report(plan.seed, plan.chapter)
    async with (
        a_world(plan.seed, keep=keep_logs, is_hurried=plan.is_hurried) as world,
        _scene(world, plan) as scene,
    ):
        try:
            await _Run(plan, scene, report).all()
        finally:
            scene.answers.close()
    return report


@asynccontextmanager
async def _scene(world: World, plan: Plan) -> AsyncIterator[Scene]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        rng = random.Random(plan.seed)
        gateways = world.shop.gateways()
        answers = Answers(world.folder / "answers.jsonl")
        probe = Probe(session, gateways, f"probe-{plan.seed}")
        load = Load(session, gateways, answers, random.Random(rng.random()))
        listeners = [
            Listener(session, gateways, customer.user_id, answers, random.Random(rng.random()))
            for customer in load.customers[:LISTENERS]
        ]
        yield Scene(world, session, probe, load, answers, listeners, rng, plan.orders_per_second)


class _Run:
    def __init__(self, plan: Plan, scene: Scene, report: Report) -> None:
        self._plan = plan
        self._scene = scene
        self._world = scene.world
        self._report = report
        self._killed: Counter[str] = Counter()
        #: Whatever is fired at a shop that does not come back shows nothing.
        self._is_lost = False
        self._begun = time.monotonic()
        self._enough = asyncio.Event()

    async def all(self) -> None:
        scene = self._scene
        await scene.probe.open()
        await scene.load.open_wallets()
        listening = [asyncio.create_task(listener.run()) for listener in scene.listeners]
        try:
            before = await self._load_and_hurt()
            await self._come_to_rest()
        finally:
            for task in listening:
                task.cancel()
            await asyncio.gather(*listening, return_exceptions=True)
        await self._conclude(before)

    async def _load_and_hurt(self) -> judge.Usage:
        """Have orders placed, and faults happen meanwhile; return what was in use before the first one."""
        scene = self._scene
        self._begun = time.monotonic()
        loading = asyncio.create_task(scene.load.run(scene.per_second, self._enough))
        try:
            await asyncio.sleep(WARM_SECONDS)
            before = await judge.usage(self._world)
            await self._faults()
            await self._rest_of_the_orders()
        except asyncio.CancelledError:
            loading.cancel()
            raise
        finally:
            self._enough.set()
            (ended,) = await asyncio.gather(loading, return_exceptions=True)
        if ended is not None:
            self._report.failures.append(f"the load broke off: {ended!r}")
        self._report.minutes = (time.monotonic() - self._begun) / 60
        return before

    async def _faults(self) -> None:
        waiting = [fault for fault in self._plan.faults if not self._is_left_out(fault)]
        total = len(waiting)
        while waiting or self._report.kills < self._plan.kills:
            if self._minutes() > self._plan.minutes * self._plan.overtime:
                self._report.failures.append(f"time was up, and {len(waiting)} faults were left")
                return
            fault = waiting.pop(0) if self._is_turn_of_a_fault(waiting, total) else self._volley(waiting)
            await self._one(fault)
            if self._is_lost:
                self._report.failures.append(
                    f"not well again after {fault.name}: {len(waiting)} faults are left"
                )
                return
            await asyncio.sleep(self._pause(waiting))

    def _is_left_out(self, fault: Fault) -> bool:
        why = fault.missing(self._world)
        if why is not None:
            self._report.left_out[fault.name] = why
        return why is not None

    def _is_turn_of_a_fault(self, waiting: list[Fault], total: int) -> bool:
        """Tell whether the next one is of the plan, or a random kill: both keep step with each other."""
        if not waiting:
            return False
        kills = self._report.kills
        return kills >= self._plan.kills or 1 - len(waiting) / total <= kills / self._plan.kills

    def _volley(self, waiting: list[Fault]) -> Fault:
        """Kill one or several at once: the more that are still to be killed for the time left, the more."""
        left = self._plan.kills - self._report.kills
        seconds_left = max(1.0, (self._plan.minutes - self._minutes()) * 60 - len(waiting) * 18.0)
        wanted = round(left / max(1.0, seconds_left / 13.0))
        most = max(1, min(VOLLEY_MAX, wanted, left))
        return volley(self._scene.rng, self._scene.rng.randint(max(1, most - 1), most))

    def _pause(self, waiting: list[Fault]) -> float:
        """Spread what is left over the time that is left."""
        done = len(self._report.happened)
        left = len(waiting) + (self._plan.kills - self._report.kills) / 2
        if left <= 0:
            return 0.0
        seconds_left = (self._plan.minutes - self._minutes()) * 60
        spare = seconds_left - left * (self._minutes() * 60 / max(1, done))
        return min(PAUSE_SECONDS_MAX, max(0.0, spare / left)) * self._scene.rng.uniform(0.5, 1.5)

    def _minutes(self) -> float:
        return (time.monotonic() - self._begun) / 60

    async def _one(self, fault: Fault) -> None:
        """Fire a fault and measure its recovery; whatever goes wrong is written down, and the run goes on."""
        happened = Happened(fault.name, time.time(), is_timed=fault.is_timed)
        self._report.happened.append(happened)
        before = await judge.dropped_by_inbox(self._world)
        try:
            fired = await fault.fire(self._scene)
            happened.kills, happened.evidence = fired.kills, fired.evidence
            if fired.kills:
                self._killed.update(self._world.records()[name].kind for name, _ in fired.victims)
            await self._recovery(fired, happened, fault.recovery_seconds_max)
        except Exception as error:  # noqa: BLE001  one fault that can't be fired is no reason to fire no other
            happened.failure = str(error) if isinstance(error, NotShown) else repr(error)
            await self._well_again(happened, fault.recovery_seconds_max)
        happened.ended = time.time()
        happened.dropped_by_inbox = await judge.dropped_by_inbox(self._world) - before
        self._tell(happened)

    async def _recovery(self, fired: Fired, happened: Happened, seconds_max: float) -> None:
        async def back() -> float:
            await asyncio.gather(
                *(self._world.until_back(name, gone, seconds_max) for name, gone in fired.victims)
            )
            return time.monotonic()

        async def served() -> float:
            await self._scene.probe.served(seconds_max)
            return time.monotonic()

        returned = asyncio.create_task(back())
        try:
            served_at = await served()
            back_at = await returned
        finally:
            returned.cancel()
        if fired.victims:
            happened.down_seconds = back_at - fired.ended_at
        happened.served_seconds = served_at - fired.ended_at
        if back_at > served_at:  # whoever returns moves partitions once more
            served_at = await served()
        happened.recovery_seconds = max(served_at - fired.ended_at, fired.taken_over_seconds)

    async def _well_again(self, happened: Happened, seconds_max: float) -> None:
        try:
            await self._world.until_all_ready(seconds_max)
            await self._scene.probe.served(seconds_max)
        except (NotShown, TimeoutError) as error:
            happened.failure += f"; and it is not well again: {error!r}"
            self._is_lost = True

    def _tell(self, happened: Happened) -> None:
        seconds = happened.recovery_seconds
        how = happened.failure or f"{happened.evidence}; recovered in {seconds or 0:.1f} s"
        console.print(
            f"{self._minutes():5.1f} min  {self._scene.load.placed:7,} orders  {self._report.kills:3} kills  "
            f"{'[red]' if happened.failure else ''}{happened.name}{'[/]' if happened.failure else ''}",
            end=": ",
        )
        console.print(how, markup=False, soft_wrap=True)

    async def _rest_of_the_orders(self) -> None:
        """Let customers order on until there are as many orders as were wanted, within bounds."""
        while self._scene.load.placed < self._plan.orders and not self._is_lost:
            if self._minutes() > self._plan.minutes * self._plan.overtime:
                return
            await asyncio.sleep(0.2)

    async def _come_to_rest(self) -> None:
        try:
            self._report.facts["seconds until at rest"] = await judge.until_at_rest(self._world)
            await judge.until_told(self._world, self._scene.listeners)
        except AssertionError as error:
            self._report.failures.append(str(error))

    async def _conclude(self, before: judge.Usage) -> None:
        report, scene, world = self._report, self._scene, self._world
        scene.answers.close()
        report.orders = await world.number("orders", "SELECT count(*) FROM orders")
        report.clients = dict(scene.answers.count)
        report.failures += scene.answers.violations[:50]
        after = await judge.usage(world)
        report.failures += after.grown(before)
        again = await judge.published_again(world)
        _attribute(report.happened, again)
        report.audit = await judge.audit(world, scene.answers.path)
        report.facts |= {
            "killed, by kind": dict(self._killed.most_common()),
            "MiB before": before.rss_mib,
            "MiB after": after.rss_mib,
            "connections to Postgres before and after": f"{before.connections} and {after.connections}",
            "messages published twice": len(again),
            "redeliveries dropped by the inbox": await judge.dropped_by_inbox(world),
            "started again without an injected fault": judge.restarts_by_themselves(world),
            "frames told over sockets": sum(listener.frames for listener in scene.listeners),
            "sockets opened": sum(listener.connections for listener in scene.listeners),
            "longest wait for a definite answer, seconds": scene.load.longest_seconds,
            "what the clients' answers contradict": len(scene.answers.violations),
            "seconds of the audit": report.audit.get("seconds"),
            "checked by the audit": report.audit.get("checked", {}),
        }
        report.failures += judge.loops(world)
        report.judge(self._plan.orders, self._plan.kills, self._plan.recovery_seconds)
        if self._plan.is_repeating:
            report.judge_repetitions()


def _attribute(happened: list[Happened], times: list[float]) -> None:
    """Count each repeated message with the fault that was on when it was published."""
    for at in times:
        last = next((one for one in reversed(happened) if one.began <= at), None)
        if last is not None:
            last.published_again += 1


def run_blocking(plan: Plan, keep_logs: Path | None = None) -> Report | None:
    """Run on a fast event loop; None where Ctrl-C or SIGTERM ended it, with all that it had started."""

    async def until_told() -> Report | None:
        running = asyncio.create_task(run(plan, keep_logs))
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, running.cancel)
        try:
            return await running
        except asyncio.CancelledError:
            return None

    return uvloop.run(until_told())
