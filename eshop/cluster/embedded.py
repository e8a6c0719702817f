"""Kafka, Postgres and Valkey as child processes: for tests, and for the lower half of the launcher."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from eshop.cluster.folder import DataFolder, temporary_folder
from eshop.cluster.jars import cache_folder, fetch_jars, locked_jars, missing_jars
from eshop.cluster.java import find_java
from eshop.cluster.kafka import Kafka
from eshop.cluster.os_user import remove_folder
from eshop.cluster.ports import free_port
from eshop.cluster.postgres import Postgres
from eshop.cluster.process import Guardian, Process
from eshop.cluster.valkey import Valkey
from eshop.settings import Settings

PartName = Literal["kafka", "postgres", "valkey"]
#: A first start on a busy machine of two cores took 12 s; the bound is for broken ones.
READY_SECONDS_MAX = 90.0


@dataclass(frozen=True, slots=True)
class PartPorts:
    """The ports of the three parts."""

    kafka: int
    kafka_controller: int
    postgres: int
    valkey: int

    @classmethod
    def free(cls, avoid: set[int] | None = None) -> Self:
        """Choose four free ones."""
        taken = set() if avoid is None else avoid
        return cls(free_port(taken), free_port(taken), free_port(taken), free_port(taken))


@dataclass(frozen=True, slots=True)
class Parts:
    """The three parts of a data folder."""

    kafka: Kafka
    postgres: Postgres
    valkey: Valkey

    @classmethod
    def of(cls, data: Path, ports: PartPorts, settings: Settings, *, ephemeral: bool = False) -> Self:
        """Lay out the parts in a data folder. Asks Java for its version."""
        return cls(
            Kafka(
                data / "kafka",
                ports.kafka,
                ports.kafka_controller,
                cache_folder(settings.cache),
                find_java(settings.java),
            ),
            Postgres(data / "postgres", ports.postgres, ephemeral),
            Valkey(data / "valkey", ports.valkey),
        )

    def prepare(self) -> None:
        """Prepare the parts' files on disk, for all three at the same time."""
        each: list[Callable[[], None]] = [self.kafka.prepare, self.postgres.prepare, self.valkey.prepare]
        with ThreadPoolExecutor(len(each)) as pool:
            for done in [pool.submit(prepare) for prepare in each]:
                done.result()


class EmbeddedCluster:
    """The three parts, started together on free ports; a context manager.

    No part restarts by itself: a test that kills a part restarts it. After any end of this process, the
    guardian ends the parts.
    """

    def __init__(self, data: Path | None = None, settings: Settings | None = None) -> None:
        """Lay out a cluster in ``data``, or in a temporary folder that ``stop`` removes."""
        self._temporary = data is None
        self._folder = temporary_folder() if data is None else DataFolder(data)
        self._parts = Parts.of(
            self._folder.path, PartPorts.free(), settings or Settings(), ephemeral=self._temporary
        )
        self._processes: dict[PartName, Process] = {}
        self._guardian: Guardian | None = None

    @property
    def kafka(self) -> str:
        """The bootstrap server, HOST:PORT."""
        return self._parts.kafka.address

    @property
    def postgres_admin_url(self) -> str:
        """The superuser's address of the maintenance database."""
        return self._parts.postgres.admin_url

    @property
    def redis_url(self) -> str:
        """Valkey's address."""
        return self._parts.valkey.url

    def start(self) -> Self:
        """Download missing files, start all parts, and return when they are ready."""
        try:
            self._folder.lock()
            jars, folder = locked_jars(), self._parts.kafka.jars
            if missing := missing_jars(folder, jars):
                fetch_jars(folder, missing, lambda _bytes: None)
            self._guardian = Guardian((self._folder.lock_descriptor,))
            self._parts.prepare()
            for part in (self._parts.kafka, self._parts.postgres, self._parts.valkey):
                program = part.program()
                process = Process(program, self._folder.log(program.name), self._guardian)
                self._processes[program.name] = process.start()  # type: ignore[index]
            for process in self._processes.values():
                process.wait_ready(READY_SECONDS_MAX)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End all parts and remove a temporary folder."""
        for process in self._processes.values():
            process.ask_to_stop()
        for process in self._processes.values():
            process.stop()
        if self._guardian is not None:
            self._guardian.close()
        self._folder.unlock()
        if self._temporary:
            remove_folder(self._folder.path / "postgres")
            remove_folder(self._folder.path)

    def pid(self, name: PartName) -> int | None:
        """Return the process id of a part, None if it is stopped."""
        return self._processes[name].pid

    def stop_part(self, name: PartName) -> None:
        """Stop a part in an orderly way."""
        self._processes[name].stop()

    def kill_part(self, name: PartName) -> None:
        """End a part by SIGKILL, with its own children."""
        self._processes[name].kill()

    def start_part(self, name: PartName) -> None:
        """Start a stopped part, on the same port and data, and return when it is ready."""
        self._processes[name].start().wait_ready(READY_SECONDS_MAX)

    def __enter__(self) -> Self:
        """Start the cluster."""
        return self.start()

    def __exit__(self, *_: object) -> None:
        """Stop the cluster."""
        self.stop()
