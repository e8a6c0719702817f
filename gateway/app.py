"""The app factory: everything the gateway is made of, wired here and nowhere else."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial

from aiohttp import web

from eshop.cancellation import cancel_and_wait
from eshop.contracts.proto.orders_v1_pb2 import CreateOrder, CreateOrderResult, CreateOrdersRequest
from eshop.contracts.services import EVENT_TOPICS, SERVICES
from eshop.settings import Settings
from gateway.app_keys import (
    CACHED_READS,
    DOCUMENTS,
    HEALTH,
    HISTORY,
    HUB,
    METRICS,
    ORDER_BATCHER,
    ORDER_WAITER,
    RECONCILER,
    SETTINGS,
    STORE,
    UPSTREAM,
)
from gateway.cache import ReadThrough, RedisStore, VersionedStore
from gateway.feed.dispatch import EventDispatch
from gateway.feed.events import Events
from gateway.feed.hub import Hub
from gateway.feed.reconcile import FeedReconciler
from gateway.health import Health
from gateway.http.bodies import BODY_BYTES_MAX
from gateway.http.middleware import observed
from gateway.http.problems import Problem
from gateway.metrics import Metrics
from gateway.routes import accounts, documents, operations, orders, pages, socket
from gateway.services.cached_reads import CachedReads
from gateway.services.history import ServicesHistory
from gateway.services.order_batcher import OrderBatcher, Send
from gateway.services.order_waiter import OrderWaiter
from gateway.services.upstream import Upstream

#: Every route, and every operation, in the order of their description.
APIS = tuple(module.api for module in (accounts, orders, socket, operations, documents, pages))
OPERATIONS = [operation for api in APIS for operation in api.operations]


def create_app(settings: Settings, store: VersionedStore | None = None) -> web.Application:
    """Return the gateway. It starts, and serves, whichever dependencies are down.

    ``store`` is the cache's, closed with the app; the settings' Redis if None.
    """
    app = web.Application(middlewares=[observed], client_max_size=BODY_BYTES_MAX)
    app[SETTINGS] = settings
    app[METRICS] = Metrics()
    app[STORE] = store or RedisStore(settings.redis_url.get_secret_value(), settings.topic_prefix)
    for each in APIS:
        app.add_routes(each.routes)
    app[DOCUMENTS] = documents.make_documents(OPERATIONS)
    app.cleanup_ctx.append(_parts)
    app.on_shutdown.append(_say_goodbye)
    return app


async def _parts(app: web.Application) -> AsyncIterator[None]:
    """Build the parts that need a running loop, run the background tasks, and stop all in reverse order."""
    settings, metrics = app[SETTINGS], app[METRICS]
    upstream = app[UPSTREAM] = Upstream(
        {service: settings.grpc_addresses(service) for service in SERVICES},
        settings.service_token.get_secret_value(),
        metrics,
    )
    store = app[STORE]
    cached_reads = app[CACHED_READS] = CachedReads(ReadThrough(store, metrics.count_cache), upstream)
    order_batcher = app[ORDER_BATCHER] = OrderBatcher(_sender(upstream, metrics))
    history = app[HISTORY] = ServicesHistory(upstream)
    order_waiter = app[ORDER_WAITER] = OrderWaiter()
    hub = app[HUB] = Hub(
        history,
        metrics,
        noticed=cached_reads.notice_frame,
        shown=cached_reads.show_frame,
        order_final=order_waiter.tell,
    )
    reconciler = app[RECONCILER] = FeedReconciler(hub, history)
    events = _events(settings, metrics, hub, order_waiter, reconciler)
    health = app[HEALTH] = _health(upstream, events, store, metrics)
    tasks = [asyncio.create_task(each.run()) for each in (events, reconciler, health)]
    yield
    await cancel_and_wait(*tasks)
    await order_batcher.close()
    await store.close()
    await upstream.close()


async def _say_goodbye(app: web.Application) -> None:
    """End all waits, and close the feeds: requests in flight still end."""
    app[ORDER_WAITER].close()
    app[HUB].close()


def _sender(upstream: Upstream, metrics: Metrics) -> Send:
    async def send(orders: Sequence[CreateOrder]) -> Sequence[CreateOrderResult]:
        metrics.creates_per_call.observe(len(orders))
        request = CreateOrdersRequest(orders=orders)
        reply = await upstream.call("orders.CreateOrders", upstream.orders.CreateOrders, request)
        if len(reply.results) != len(orders):
            raise Problem("unavailable", "The orders service answered something else.")
        return reply.results

    return send


def _events(
    settings: Settings, metrics: Metrics, hub: Hub, order_waiter: OrderWaiter, reconciler: FeedReconciler
) -> Events:
    def attached(now: bool) -> None:
        order_waiter.attached = now
        if now:
            # Events of the time without a reader are in history only.
            reconciler.soon()
            order_waiter.tell_all()

    topics = [settings.topic(topic.name) for topic in EVENT_TOPICS]
    return Events(settings.kafka, topics, EventDispatch(hub, metrics).handle, attached, metrics)


def _health(upstream: Upstream, events: Events, store: VersionedStore, metrics: Metrics) -> Health:
    def told(name: str, up: bool) -> None:
        metrics.dependency_up.labels(name).set(up)

    return Health(
        {
            **{service: partial(upstream.look, service) for service in SERVICES},
            "kafka": events.check,
            "redis": store.ping,
        },
        needed=(*SERVICES, "kafka"),
        serving=[*SERVICES],
        told=told,
    )
