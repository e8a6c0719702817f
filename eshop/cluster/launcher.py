"""Starts the whole shop in order, supervises it, and stops it in reverse order.

See docs/adr/0008-a-cluster-without-docker.md.
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Self

import psutil

from eshop.cluster.embedded import READY_SECONDS_MAX, Parts
from eshop.cluster.errors import ClusterError
from eshop.cluster.folder import DataFolder, ProcessRecord, RunRecord
from eshop.cluster.logs import bound_log
from eshop.cluster.process import Guardian, Process, Program
from eshop.cluster.services import Plan, service_program
from eshop.cluster.supervisor import State, Supervised
from eshop.contracts.services import PROJECTIONS
from eshop.kafka.topics import ensure_topics
from eshop.settings import Settings

TICK_SECONDS = 0.2
#: A child that ended this often before it was ever ready will not become ready by itself.
FAILED_STARTS_MAX = 3
#: The shop serves without these processes.
OPTIONAL_KINDS = frozenset({PROJECTIONS})
#: An optional process that still runs may be ready in a moment.
OPTIONAL_SECONDS_MAX = 30.0

Announce = Callable[[str, str], None]


class Launcher:
    """A run: Kafka, Postgres and Valkey, then the topics, then the services.

    It is ready when all processes are, apart from optional ones: see ``missing``.

    ``announce(name, text)`` is called with the events of each child, from several threads. ``stop_wanted``
    ends every wait. The data folder must be locked.
    """

    def __init__(
        self,
        folder: DataFolder,
        plan: Plan,
        parts: Parts,
        settings: Settings,
        announce: Announce,
        stop_wanted: threading.Event,
    ) -> None:
        self.plan = plan
        self.children: list[Supervised] = []
        self._folder = folder
        self._parts = parts
        self._settings = settings
        self._tell = announce
        self._stop_wanted = stop_wanted
        self._ready = False
        self._record_lock = threading.Lock()
        self._created = psutil.Process().create_time()
        self._guardian = Guardian((folder.lock_descriptor,))

    def start(self) -> Self:
        """Return when everything is ready; raise ClusterError, with a log's last lines, if it fails."""
        self._write_record()
        self._parts.prepare()
        ports = self.plan.parts
        self._start_all(
            [
                self._child(self._parts.kafka.program(), "kafka", {"kafka": ports.kafka}),
                self._child(self._parts.valkey.program(), "valkey", {"redis": ports.valkey}),
                self._child(self._parts.postgres.program(), "postgres", {"postgres": ports.postgres}),
            ],
            failed_starts_max=1,
        )
        asyncio.run(ensure_topics(self._parts.kafka.address, self._settings.topic_prefix))
        self._start_all(
            [
                self._child(
                    service_program(service, self.plan, self._parts, self._folder.path),
                    service.kind,
                    service.ports,
                )
                for service in self.plan.services
            ],
            failed_starts_max=FAILED_STARTS_MAX,
        )
        self._ready = True
        self._write_record()
        return self

    def missing(self) -> list[Supervised]:
        """Return the children that are not ready; the supervisor keeps trying."""
        return [child for child in self.children if child.state is not State.READY]

    def watch(self, tick: Callable[[], None]) -> None:
        """Return when a stop is wanted; call ``tick`` several times a second until then."""
        while not self._stop_wanted.wait(TICK_SECONDS):
            tick()
            for child in self.children:
                bound_log(child.process.log)
            if not self._guardian.is_alive():
                raise ClusterError("the guardian process was ended: stopping, so that nothing is left behind")

    def stop(self) -> None:
        """End gateways, then workers, then Kafka, Valkey and Postgres; each group together."""
        self._ready = False
        for group in _stop_order(self.children):
            for child in group:
                child.ask_to_stop()
            for child in group:
                child.stop()
                self._announce(child.name, "stopped")
        self._guardian.close()
        self._folder.forget()

    def _child(self, program: Program, kind: str, ports: dict[str, int]) -> Supervised:
        process = Process(program, self._folder.log(program.name), self._guardian)
        return Supervised(process, kind, ports, self._announce)

    def _start_all(self, children: list[Supervised], failed_starts_max: int) -> None:
        for child in children:
            self.children.append(child)
            child.start()
        end = time.monotonic() + READY_SECONDS_MAX
        while waiting := self._waiting(children):
            if self._stop_wanted.wait(TICK_SECONDS / 2):
                raise ClusterError(f"stopped while {waiting[0].name} was starting")
            for child in waiting:
                late = time.monotonic() > end
                if child.restarts >= failed_starts_max or late:
                    how = f"was not ready in {READY_SECONDS_MAX:.0f} s" if late else "does not start"
                    raise ClusterError(f"{child.name} {how}:\n{child.process.last_words()}")
        self._wait_for_optional(children)

    def _waiting(self, children: list[Supervised]) -> list[Supervised]:
        """Return the required children that are not ready."""
        return [
            child for child in children if child.state is not State.READY and child.kind not in OPTIONAL_KINDS
        ]

    def _wait_for_optional(self, children: list[Supervised]) -> None:
        """Wait a while for optional children, but for none that has ended already."""
        end = time.monotonic() + OPTIONAL_SECONDS_MAX
        while any(child.state is State.STARTING and not child.restarts for child in children):
            if self._stop_wanted.wait(TICK_SECONDS / 2) or time.monotonic() > end:
                return

    def _announce(self, name: str, text: str) -> None:
        self._tell(name, text)
        self._write_record()

    def _write_record(self) -> None:
        with self._record_lock:
            records = tuple(
                ProcessRecord(
                    child.name,
                    child.kind,
                    child.process.pid,
                    child.state,
                    child.ports,
                    child.process.started_at,
                    child.restarts,
                )
                for child in self.children
            )
            self._folder.write(RunRecord(os.getpid(), self._created, self._ready, records))


def _stop_order(children: Iterable[Supervised]) -> list[list[Supervised]]:
    ranks = {"gateway": 0, "kafka": 2, "valkey": 3, "postgres": 4}
    groups: list[list[Supervised]] = [[] for _ in range(5)]
    for child in children:
        groups[ranks.get(child.kind, 1)].append(child)
    return groups
