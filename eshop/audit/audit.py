"""One audit from beginning to end: wait for rest, take the cut, judge, look again at what seemed wrong."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import psycopg2
from aiokafka.errors import KafkaError

from eshop.audit.answers import check_answers
from eshop.audit.broker import Broker, Offsets
from eshop.audit.databases import Snapshot
from eshop.audit.findings import Findings, NotJudged, Report
from eshop.audit.histories import check_feed, check_orders
from eshop.audit.ledger import check_ledger
from eshop.audit.liveness import check_watermarks, settle
from eshop.audit.messages import Log, TopicCheck
from eshop.audit.outcomes import SUSPECTS_MAX, Cut, Suspect, find_suspects, in_flight
from eshop.audit.sources import Sources
from eshop.contracts.topics import CATALOGUE, ORDERS_EVENTS, PAYMENTS_EVENTS

LOOK_AGAIN_SECONDS = 1.0
#: How often what keeps moving is looked at before it is given up as moving: then it is no break.
LOOKS_MAX = 20


class Progress(Protocol):
    """Is told how the work goes."""

    def step(self, name: str, total: int | None) -> Callable[[int], None]:
        """Begin a step of so many parts, if that is known; return what to call as they are done."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to audit and how: how long to wait for rest, what clients were told, which invariants to leave."""

    sources: Sources
    progress: Progress
    settle_seconds: float = 5.0
    answers: Path | None = None
    skipped: frozenset[str] = field(default_factory=frozenset)


async def audit(wanted: Wanted) -> Report:
    """Audit once. Raises NotJudged where that can't be done."""
    began = time.monotonic()
    try:
        async with Broker(wanted.sources.kafka) as broker:
            findings = await _Audit(wanted, broker).run()
    except (psycopg2.Error, KafkaError, TimeoutError, OSError) as error:
        raise NotJudged(f"{type(error).__name__}: {error}".strip()) from error
    for invariant in wanted.skipped:
        del findings.broken[invariant]
        findings.examples.pop(invariant, None)
    return Report(findings, time.monotonic() - began, wanted.skipped)


class _Audit:
    def __init__(self, wanted: Wanted, broker: Broker) -> None:
        self._wanted = wanted
        self._sources = wanted.sources
        self._broker = broker
        self._findings = Findings()

    async def run(self) -> Findings:
        step = self._wanted.progress.step
        step("waiting for rest", None)
        self._findings = await settle(self._sources, self._broker, self._wanted.settle_seconds)
        names = [self._sources.settings.topic(topic.name) for topic in CATALOGUE]
        partitions = await self._broker.partitions(names)
        committed = [
            await self._broker.committed(group, [tp for tp in partitions if tp.topic == topic])
            for group, topic in self._sources.groups()
        ]
        known_until = await self._broker.ends(partitions)
        cut = await asyncio.to_thread(self._open_cut)
        try:
            ends = await self._broker.ends(partitions)
            await asyncio.to_thread(self._judge_databases, cut, committed)
            suspects = await asyncio.to_thread(self._find_suspects, cut)
            topics = await self._judge_topics(cut, known_until, ends)
        finally:
            cut.close()
        await self._look_again(suspects, topics)
        return self._findings

    def _open_cut(self) -> Cut:
        return Cut(self._sources.orders(), self._sources.payments(), self._sources.orders())

    def _judge_databases(self, cut: Cut, committed: list[Offsets]) -> None:
        step, findings = self._wanted.progress.step, self._findings
        step("the ledger", None)
        check_ledger(cut.payments, findings)
        step("histories and keys", None)
        check_orders(cut.orders, findings)
        check_feed(cut.orders, findings)
        check_feed(cut.payments, findings)
        for reader, offsets in zip((cut.orders, cut.payments), committed, strict=True):
            check_watermarks(reader, offsets, findings)
        if self._wanted.answers is not None:
            step("answers", None)
            check_answers(self._wanted.answers, cut.orders_after, findings)

    def _find_suspects(self, cut: Cut) -> list[Suspect]:
        total = cut.orders.rows("SELECT count(*) AS orders FROM orders")[0].orders
        advance = self._wanted.progress.step("orders and payments", total)
        suspects: list[Suspect] = []
        for suspect in find_suspects(cut, self._findings, progress=advance):
            if len(suspects) < SUSPECTS_MAX:
                suspects.append(suspect)
            else:
                suspect.report(self._findings)
        return suspects

    async def _judge_topics(
        self, cut: Cut, known_until: Offsets, ends: Offsets
    ) -> list[tuple[TopicCheck, str | None]]:
        """Judge each topic; return the checks, each with the service that reads its topic."""
        starts = await self._broker.starts(ends)
        readers: dict[str, Snapshot] = {ORDERS_EVENTS.name: cut.payments, PAYMENTS_EVENTS.name: cut.orders}
        checks = []
        for topic in CATALOGUE:
            name = self._sources.settings.topic(topic.name)
            writer = cut.orders if topic.name.startswith("eshop.orders.") else cut.payments
            reader = readers.get(topic.name)
            own = {tp: end for tp, end in ends.items() if tp.topic == name}
            log = Log(name, topic.name, writer, reader, starts, known_until, own)
            total = sum(end - starts[tp] for tp, end in own.items())
            check = TopicCheck(log, self._findings, self._wanted.progress.step(name, total))
            await check.run(self._broker)
            checks.append((check, None if reader is None else reader.service))
        return checks

    async def _look_again(self, suspects: list[Suspect], topics: list[tuple[TopicCheck, str | None]]) -> None:
        """Report what has not moved; what is in flight is nobody's break."""
        foreign = any(check.foreign for check, _ in topics)
        looks = 0
        while suspects or (foreign and not looks):
            self._wanted.progress.step(f"looking again at {len(suspects) or 'what is foreign'}", None)
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
            suspects = await asyncio.to_thread(self._still_suspect, suspects)
            looks += 1
            if looks >= LOOKS_MAX:
                self._findings.unjudged["orders_that_keep_moving"] += len(suspects)
                break
        if foreign:
            await asyncio.to_thread(self._judge_foreign, topics)

    def _still_suspect(self, suspects: list[Suspect]) -> list[Suspect]:
        """Report those that are as they were, with nothing in flight; return those to be read once more."""
        cut = self._open_cut()
        try:
            before = {suspect.order_id: suspect for suspect in suspects}
            again = list(find_suspects(cut, self._findings, list(before))) if before else []
            moving = in_flight(cut, again)
            still = []
            for suspect in again:
                if suspect.order_id in moving or suspect != before[suspect.order_id]:
                    still.append(suspect)
                else:
                    suspect.report(self._findings)
            return still
        finally:
            cut.close()

    def _judge_foreign(self, topics: list[tuple[TopicCheck, str | None]]) -> None:
        with self._sources.orders() as orders, self._sources.payments() as payments:
            readers = {"orders": orders, "payments": payments, None: None}
            for check, reader in topics:
                check.judge_foreign(readers[reader])
