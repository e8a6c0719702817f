"""The worker of a service: its parts, and the order in which they start and stop."""

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Generic, TypeVar

from grpc import aio

from eshop.agents.consumer import register
from eshop.agents.watchdog import LOOK_SECONDS, SilenceWatch
from eshop.cancellation import cancel_and_wait
from eshop.contracts.messages import parked_by
from eshop.contracts.proto.dead_letters_v1_pb2_grpc import add_DeadLettersServicer_to_server
from eshop.contracts.proto.timeline_v1_pb2_grpc import add_TimelinePartsServicer_to_server
from eshop.contracts.services import Service
from eshop.crash_points import arm_crash_points
from eshop.handlers.parking import park
from eshop.handlers.replay import Handler
from eshop.kafka.log import next_offset
from eshop.kafka.topics import Copies, ensure_topics
from eshop.process.app import ServiceApp
from eshop.process.periodic import register_periodic
from eshop.process.start import when_there
from eshop.relay.depth import MEASURE_SECONDS, measure_outbox
from eshop.relay.publisher import Publisher
from eshop.relay.relay import Relay
from eshop.rpc import dead_letters, timeline
from eshop.rpc.server import GrpcServer
from eshop.settings import Settings
from eshop.store.database import REQUEST_CONNECTIONS_MAX, Database, Session
from eshop.store.migrate import migrate
from eshop.store.outbox_notifier import OutboxNotifier
from eshop.store.retention import Retention
from eshop.store.unit_of_work import Store, UnitOfWork
from eshop.web.health import NotReady

RETENTION_SECONDS = 600.0
#: The relay's round may end in this time; then it is cut off, at the cost of repeated messages only.
RELAY_STOP_SECONDS = 3.0

U = TypeVar("U", bound=UnitOfWork)
AddServicer = Callable[[aio.Server], None]


class ServiceWorker(Generic[U]):
    """A service's worker: its Faust app, and two stores of its database, of which ``requests`` is for gRPC.

    Each topic that the service reads has an agent that hands batches to ``handler``. Dead letters and
    timelines are served by gRPC; ``serve`` adds other servicers. Nothing is connected before ``app`` starts.
    """

    def __init__(
        self,
        service: Service,
        settings: Settings,
        unit_of_work: Callable[[Session, OutboxNotifier], U],
        handler: Handler[U],
    ) -> None:
        name = service.name
        self.app = ServiceApp(name, settings)
        if settings.crash_points is not None:
            arm_crash_points(settings.crash_points, name)
        url, client = settings.service_database_url(name), f"eshop-{name}-{os.getpid()}"
        self.store = Store(Database(url, client), unit_of_work)
        self.requests = Store(
            Database(url, client, REQUEST_CONNECTIONS_MAX),
            unit_of_work,
            self.store.notifier,
            crash_point="after-request-commit",
        )
        _wire_database(self.app, name, settings, self.store, self.requests)
        _wire_relay(self.app, settings, self.store)
        self._read(service, settings, handler)
        self._servicers: dict[str, AddServicer] = {}
        letters = dead_letters.DeadLettersServicer(self.requests, handler)
        self.serve(dead_letters.SERVICE_NAME, partial(add_DeadLettersServicer_to_server, letters))
        part = timeline.TimelinePartsServicer(self.requests)
        self.serve(timeline.SERVICE_NAME, partial(add_TimelinePartsServicer_to_server, part))
        _wire_grpc(self.app, settings, self._servicers)

    def serve(self, name: str, add_servicer: AddServicer) -> None:
        """Serve a gRPC service, by its full name, from the app's start until its stop."""
        self._servicers[name] = add_servicer

    def _read(self, service: Service, settings: Settings, handler: Handler[U]) -> None:
        parking = partial(park, announcement=parked_by(service))
        looking = partial(next_offset, settings.kafka)
        for topic in service.reads:
            agent = f"{service.name}.{handler.__name__}"
            if len(service.reads) > 1:
                agent = f"{agent}.{topic.name}"
            register(self.app, self.store, settings.topic(topic.name), handler, parking, looking, agent)


def _wire_database(
    app: ServiceApp, service: str, settings: Settings, store: Store[U], requests: Store[U]
) -> None:
    async def have_topics() -> None:
        await ensure_topics(settings.kafka, settings.topic_prefix, _copies(settings))

    async def have_database() -> None:
        if (admin_url := settings.admin_url()) is not None:
            await asyncio.to_thread(migrate, service, store.database.url, admin_url)

    @app.before_start
    async def prepare() -> None:
        for work in (have_topics, have_database, store.database.open, requests.database.open):
            await when_there(work)

    async def is_answering() -> None:
        await store.database.transact(lambda session: session.run_sql("SELECT 1"))

    app.add_check("postgres", is_answering)
    app.at_end(store.database.close)
    app.at_end(requests.database.close)
    register_periodic(app, RETENTION_SECONDS, Retention(store.database).remove_expired, "retention")


def _wire_relay(app: ServiceApp, settings: Settings, store: Store[U]) -> None:
    holder = f"{socket.gethostname()}:{os.getpid()}"
    publisher = Publisher(settings.kafka, settings.topic_prefix, _copies(settings))
    relay = Relay(store.database, store.notifier, publisher, holder)
    watch = SilenceWatch(lambda: relay.alive_at, "the relay")
    running: list[asyncio.Task[None]] = []

    @app.before_start
    async def start() -> None:
        running.append(asyncio.create_task(relay.run()))

    @app.at_end
    async def stop() -> None:
        relay.stop()
        if running:
            await asyncio.wait(running, timeout=RELAY_STOP_SECONDS)
        await cancel_and_wait(*running, seconds_max=1.0)

    async def is_running() -> None:
        if not running or running[0].done():
            raise NotReady("the relay does not run")
        await watch.check()

    app.add_check("relay", is_running)
    register_periodic(app, LOOK_SECONDS, watch.look, "the watch on the relay")
    register_periodic(app, MEASURE_SECONDS, partial(measure_outbox, store.database), "measuring the outbox")


def _copies(settings: Settings) -> Copies:
    return Copies(settings.topic_replication, settings.topic_min_in_sync)


def _wire_grpc(app: ServiceApp, settings: Settings, services: Mapping[str, AddServicer]) -> None:
    """Serve gRPC services, by name, from the app's start until its stop."""
    running: list[GrpcServer] = []

    @app.before_start
    async def start() -> None:
        server = GrpcServer(
            settings.grpc_address(app.kind),
            settings.service_token.get_secret_value(),
            service_names=list(services),
            with_reflection=settings.grpc_reflection,
        )
        for add_servicer in services.values():
            add_servicer(server.server)
        await server.start()
        running.append(server)

    @app.at_stop
    async def stop() -> None:
        for server in running:
            await server.stop()

    async def is_serving() -> None:
        if not running:
            raise NotReady("gRPC is not served yet")

    app.add_check("grpc", is_serving)
