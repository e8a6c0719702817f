"""The Faust app of every worker: measured settings, hooks, health. It knows no service.

A worker's module makes an app, adds hooks, checks, agents and views, and the Faust command starts it.

See docs/adr/0006-faust-as-it-is.md.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable
from importlib.metadata import version
from typing import Any, ClassVar

import faust
from faust.sensors.prometheus import FaustMetrics, PrometheusMonitor
from faust.types import TransportT
from faust.web.base import Web
from faust.web.drivers.aiohttp import Web as AiohttpWeb
from mode import Service, ServiceT
from prometheus_client import REGISTRY

from eshop.contracts.topics import PARTITIONS
from eshop.environment import drop_postgres_variables
from eshop.kafka.connections import report_broken_connections
from eshop.process.assignor import CataloguePartitionAssignor
from eshop.process.consumer import SeekHook, SeekingConsumer, SeekingTransport
from eshop.process.membership import LOOK_SECONDS, Membership
from eshop.settings import ANY_HOSTS, Settings
from eshop.web.health import Check, check_kafka, install_health

Hook = Callable[[], Awaitable[None]]

#: The group gives up a dead worker after this time, the least that Kafka allows, unless the worker is back
#: under its static-membership id. A worker that leaves is missed at once without an id, and after this time
#: with an id.
SESSION_SECONDS = 6.0
HEARTBEAT_SECONDS = 2.0
REBALANCE_SECONDS = 10.0
COMMIT_SECONDS = 0.5
REQUEST_SECONDS = 30.0
#: A supervisor that has stopped a worker does not wait without a bound.
HOOK_SECONDS_MAX = 5.0
#: Messages read ahead of an agent.
STREAM_BUFFER_MAX = 4096

logger = logging.getLogger(__name__)


class ServiceApp(faust.App):
    """A worker's Faust app.

    ``kind`` is the name of the service, or projections: the consumer group and the HTTP address follow from
    it. Hooks are coroutine functions without arguments. If a hook raises at the start, the process ends with
    a log line and exit code 1, before any subscription.
    """

    def __init__(self, kind: str, settings: Settings) -> None:
        drop_postgres_variables()
        report_broken_connections()
        super().__init__(settings.group(kind), **_options(kind, settings))
        self.kind = kind
        self.settings = settings
        self._before_start: list[Hook] = []
        self._at_stop: list[Hook] = []
        self._at_end: list[Hook] = []
        self._after_seek: list[SeekHook] = []
        self._membership = Membership(self, is_named=settings.instance is not None)
        self._checks: dict[str, Check] = {"kafka": self._check_kafka}
        install_health(self, self._checks)

    def before_start(self, hook: Hook) -> Hook:
        """Run the hook, in order of registration, before Kafka, agents, tasks and HTTP are started.

        The place for migrations (in a thread), pools and ``ensure_topics``: Faust ignores a topic without an
        end if the topic is missing when Faust subscribes.
        """
        self._before_start.append(hook)
        return hook

    def at_stop(self, hook: Hook) -> Hook:
        """Run the hook first when the process is stopped: the place to refuse further requests.

        Agents still run and pools are open. The latest registered hook runs first; a hook that raises is
        logged.
        """
        self._at_stop.append(hook)
        return hook

    def at_end(self, hook: Hook) -> Hook:
        """Run the hook last, after agents, tasks and reading have ended: the place to close pools.

        The latest registered hook runs first; a hook that raises is logged.
        """
        self._at_end.append(hook)
        return hook

    def after_seek(self, hook: SeekHook) -> SeekHook:
        """Run the hook after every seek to the committed offsets, before the consumer reads on.

        Only a seek in this place lasts. A hook that raises is logged, and reading goes on.
        """
        self._after_seek.append(hook)
        return hook

    async def sought(self, consumer: SeekingConsumer) -> None:
        """Run the hooks of ``after_seek``."""
        for hook in self._after_seek:
            try:
                await hook(consumer)
            except Exception:
                logger.exception("a hook failed after a seek")

    def add_check(self, name: str, check: Check) -> None:
        """Make readiness depend on the check, which raises ``NotReady`` with the reason."""
        self._checks[name] = check

    def on_init_dependencies(self) -> Iterable[ServiceT]:
        """Measure the worker. Here and not at construction: a registry takes Faust's metrics once."""
        self.monitor = PrometheusMonitor(metrics=FaustMetrics.create(REGISTRY, "faust"))
        return super().on_init_dependencies()

    async def on_first_start(self) -> None:
        """Run the start hooks; Faust starts its services only afterwards."""
        try:
            self.conf.datadir.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                error.errno,
                f"cannot write to the data folder ({error.strerror}), see ESHOP_DATA",
                error.filename,
            ) from error
        await super().on_first_start()
        for hook in self._before_start:
            await hook()

    async def _check_kafka(self) -> None:
        await check_kafka(self)
        await self._membership.check()

    @Service.task
    async def _stay_a_member(self) -> None:
        while not self.should_stop:
            self._membership.look()
            await self.sleep(LOOK_SECONDS)

    async def on_stop(self) -> None:
        """Stop taking work, then let Faust stop."""
        await _run_all(reversed(self._at_stop))
        await super().on_stop()

    async def on_shutdown(self) -> None:
        """Release the resources of the agents."""
        await super().on_shutdown()
        await _run_all(reversed(self._at_end))

    def _new_web(self) -> Web:
        return _Web(self)

    def _new_transport(self) -> TransportT:
        return SeekingTransport(self.conf.broker_consumer, self, loop=self.loop)


class _Web(AiohttpWeb):
    """Faust's web server without the pages that Faust serves by default."""

    default_blueprints: ClassVar[Any] = ()
    production_blueprints: ClassVar[Any] = ()
    debug_blueprints: ClassVar[Any] = ()


async def _run_all(hooks: Iterable[Hook]) -> None:
    for hook in hooks:
        try:
            async with asyncio.timeout(HOOK_SECONDS_MAX):
                await hook()
        except Exception:
            logger.exception("a hook failed while stopping")


def _options(kind: str, settings: Settings) -> dict[str, Any]:
    """Return Faust's settings."""
    host, port = settings.web_address(kind)
    return {
        # Faust's own variables (WEB_PORT, TOPIC_PARTITIONS, …) would win over all of these.
        "env": {},
        "broker": [f"kafka://{address.strip()}" for address in settings.kafka.split(",")],
        "broker_session_timeout": SESSION_SECONDS,
        "broker_heartbeat_interval": HEARTBEAT_SECONDS,
        "broker_rebalance_timeout": REBALANCE_SECONDS,
        "broker_request_timeout": REQUEST_SECONDS,
        "broker_commit_interval": COMMIT_SECONDS,
        "consumer_auto_offset_reset": "earliest",
        "consumer_group_instance_id": _instance_id(settings, port),
        "processing_guarantee": "at_least_once",
        "key_serializer": "raw",
        "value_serializer": "raw",
        "topic_partitions": PARTITIONS,
        "topic_replication_factor": settings.topic_replication,
        # Only changelogs of tables are ever declared: Faust declares no source topic.
        "topic_allow_declare": True,
        "topic_disable_leader": True,
        "PartitionAssignor": CataloguePartitionAssignor,
        "stream_buffer_maxsize": STREAM_BUFFER_MAX,
        "stream_wait_empty": False,
        # Faust formats the address when it reads it, so that `worker --web-port` has an effect.
        "datadir": f"{_escaped(settings.data)}/faust/{kind}-{{conf.web_port}}",
        # Not the `store=` of a table: Faust ignores this URL there, and silently keeps the state in memory.
        "store": "rocksdb://",
        "autodiscover": False,
        "web_bind": host,
        "web_port": port,
        **_advertised(settings, host),
        "web_tables_enabled": False,
        "web_router_enabled": False,
        "logging_config": _logging_config(),
    }


def _advertised(settings: Settings, host: str) -> dict[str, Any]:
    """Return the address for other workers: the setting, or the listening address, or the machine's name."""
    if settings.web_advertised is not None:
        return {"canonical_url": f"http://{settings.web_advertised}"}
    if host in ANY_HOSTS:
        host = socket.gethostname()
    return {"web_host": f"[{host}]" if ":" in host else host}


def _instance_id(settings: Settings, port: int) -> str | None:
    """Return the static-membership id: a worker that restarts with its id keeps its partitions.

    The coordinator returns the old assignment. Faust rejects an assignment with another address, and would
    not get a new table. So the port and the version are part of the id.
    """
    return f"{settings.instance}-{port}-{version('eshop')}" if settings.instance else None


def _escaped(path: object) -> str:
    return str(path).replace("{", "{{").replace("}", "}}")


def _logging_config() -> dict[str, Any]:
    line = {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}
    quiet = {"level": "WARNING"}
    return {
        "merge": True,
        "formatters": {"default": line, "colored": line},
        "loggers": {"aiokafka": quiet, "faust.tables.recovery": quiet},
    }
