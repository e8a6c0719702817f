"""An audit from begin to end: wait for rest, judge page by page, check suspects again.

See docs/adr/0015-the-audit-reads-for-itself.md.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import psycopg2
from aiokafka.errors import KafkaError

from eshop.audit.answers import check_answers
from eshop.audit.broker import Broker, Offsets
from eshop.audit.databases import Database, Page, parts
from eshop.audit.findings import Findings, NotJudged, Report
from eshop.audit.histories import check_feed, check_orders
from eshop.audit.ledger import check_ledger
from eshop.audit.liveness import check_watermarks, settle
from eshop.audit.messages import Log, TopicCheck
from eshop.audit.outboxes import check_announcements
from eshop.audit.outcomes import SUSPECTS_MAX, Cut, Suspect, find_suspects, in_flight
from eshop.audit.questions import check_questions
from eshop.audit.sources import Sources
from eshop.audit.spool import Spool
from eshop.contracts.services import AUDITED
from eshop.contracts.topics import ORDERS_EVENTS, PAYMENTS_EVENTS

LOOK_AGAIN_SECONDS = 1.0
#: The number of checks of a suspect that keeps moving; after them it counts as moving, not as broken.
LOOKS_MAX = 20
_TOPICS = (*(service.events for service in AUDITED), *(service.dead_letters for service in AUDITED))


class Progress(Protocol):
    """Is called with the progress of the work."""

    def step(self, name: str, total: int | None) -> Callable[[int], None]:
        """Begin a step with a number of parts, if known; return the callable that counts finished parts."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to audit: the sources, the wait for rest, the client log, and the invariants to skip."""

    sources: Sources
    progress: Progress
    settle_seconds: float = 5.0
    answers: Path | None = None
    skipped: frozenset[str] = field(default_factory=frozenset)


async def audit(wanted: Wanted) -> Report:
    """Audit once. Raises NotJudged if that is impossible."""
    began = time.monotonic()
    try:
        async with Broker(wanted.sources.kafka) as broker:
            sources = wanted.sources
            with sources.orders() as orders, sources.payments() as payments, sources.orders() as again:
                findings = await _Audit(wanted, broker, orders, payments, again).run()
    except (psycopg2.Error, KafkaError, TimeoutError, OSError) as error:
        raise NotJudged(f"{type(error).__name__}: {error}".strip()) from error
    for invariant in wanted.skipped:
        del findings.broken[invariant]
        findings.examples.pop(invariant, None)
    return Report(findings, time.monotonic() - began, wanted.skipped)


class _Audit:
    def __init__(
        self, wanted: Wanted, broker: Broker, orders: Database, payments: Database, orders_after: Database
    ) -> None:
        self._wanted = wanted
        self._sources = wanted.sources
        self._broker = broker
        self._orders = orders
        self._payments = payments
        #: A second connection, for the last reading of a cut.
        self._orders_after = orders_after
        self._spool = Spool()
        self._findings = Findings()

    async def run(self) -> Findings:
        step = self._wanted.progress.step
        step("waiting for rest", None)
        self._findings = await settle(self._sources, self._broker, self._wanted.settle_seconds)
        names = [self._sources.settings.topic(topic.name) for topic in _TOPICS]
        partitions = await self._broker.partitions(names)
        committed = [
            await self._broker.committed(group, [tp for tp in partitions if tp.topic == topic])
            for group, topic in self._sources.groups()
        ]
        with self._spool:
            await asyncio.to_thread(self._judge_databases, committed)
            suspects = await asyncio.to_thread(self._find_suspects)
            topics = await self._judge_topics(await self._broker.ends(partitions))
            step("answers to questions", None)
            await asyncio.to_thread(check_questions, self._payments, self._spool, self._findings)
        await self._look_again(suspects, topics)
        return self._findings

    def _judge_databases(self, committed: list[Offsets]) -> None:
        step, findings = self._wanted.progress.step, self._findings
        step("the ledger", None)
        check_ledger(self._payments, findings)
        step("histories and keys", None)
        check_orders(self._orders, findings)
        for reader, offsets in zip((self._orders, self._payments), committed, strict=True):
            check_feed(reader, findings)
            check_watermarks(reader, offsets, findings)
        step("outboxes", None)
        for writer in (self._orders, self._payments):
            check_announcements(writer, self._spool, findings)
        if self._wanted.answers is not None:
            step("answers", None)
            check_answers(self._wanted.answers, self._orders, findings)

    def _find_suspects(self) -> list[Suspect]:
        with self._orders.snapshot() as orders:
            total = orders.rows("SELECT count(*) AS orders FROM orders")[0].orders
        advance = self._wanted.progress.step("orders and payments", total)
        checked = self._findings.checked
        suspects: list[Suspect] = []
        for orders, page in self._orders.pages("orders", "order_id"):
            before = checked["orders"]
            with self._payments.snapshot() as payments, self._orders_after.snapshot() as orders_after:
                found = list(find_suspects(Cut(orders, payments, orders_after), page, checked))
            free = SUSPECTS_MAX - len(suspects)
            suspects += found[:free]
            for suspect in found[free:]:
                suspect.report(self._findings)
            advance(checked["orders"] - before)
        return suspects

    async def _judge_topics(self, ends: Offsets) -> list[tuple[TopicCheck, Database | None]]:
        """Judge each topic; return the checks, each with the reader of its topic."""
        starts = await self._broker.starts(ends)
        readers = {ORDERS_EVENTS.name: self._payments, PAYMENTS_EVENTS.name: self._orders}
        checks = []
        for topic in _TOPICS:
            name = self._sources.settings.topic(topic.name)
            writer = self._orders if topic.name.startswith("eshop.orders.") else self._payments
            reader = readers.get(topic.name)
            own = {tp: end for tp, end in ends.items() if tp.topic == name}
            log = Log(name, topic.name, writer, reader, starts, own)
            total = sum(end - starts[tp] for tp, end in own.items())
            check = TopicCheck(log, self._spool, self._findings, self._wanted.progress.step(name, total))
            await check.run(self._broker)
            checks.append((check, reader))
        return checks

    async def _look_again(
        self, suspects: list[Suspect], topics: list[tuple[TopicCheck, Database | None]]
    ) -> None:
        """Report suspects that have not moved; messages in flight break nothing."""
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
        still = []
        for part in parts(suspects):
            before = {suspect.order_id: suspect for suspect in part}
            with (
                self._orders.snapshot() as orders,
                self._payments.snapshot() as payments,
                self._orders_after.snapshot() as orders_after,
            ):
                cut = Cut(orders, payments, orders_after)
                again = list(find_suspects(cut, Page.of("order_id", list(before)), Counter()))
                moving = in_flight(cut, again)
            for suspect in again:
                if suspect.order_id in moving or suspect != before[suspect.order_id]:
                    still.append(suspect)
                else:
                    suspect.report(self._findings)
        return still

    def _judge_foreign(self, topics: list[tuple[TopicCheck, Database | None]]) -> None:
        for check, reader in topics:
            if reader is None:
                check.judge_foreign(None)
                continue
            with reader.snapshot() as snapshot:
                check.judge_foreign(snapshot)
