"""What the app and each request carry, by typed key."""

from aiohttp import web

from eshop.settings import Settings
from gateway.cache import VersionedStore
from gateway.feed.history import ServicesHistory
from gateway.feed.hub import Hub
from gateway.feed.reconcile import FeedReconciler
from gateway.health import Health
from gateway.http.tracing import Trace
from gateway.metrics import Metrics
from gateway.services.cached_reads import CachedReads
from gateway.services.order_batcher import OrderBatcher
from gateway.services.order_waiter import OrderWaiter
from gateway.services.upstream import Upstream

SETTINGS = web.AppKey("settings", Settings)
METRICS = web.AppKey("metrics", Metrics)
UPSTREAM = web.AppKey("upstream", Upstream)
STORE: web.AppKey[VersionedStore] = web.AppKey("store")
CACHED_READS = web.AppKey("reads", CachedReads)
ORDER_BATCHER = web.AppKey("order_batcher", OrderBatcher)
HISTORY = web.AppKey("history", ServicesHistory)
ORDER_WAITER = web.AppKey("waits", OrderWaiter)
HUB = web.AppKey("hub", Hub)
RECONCILER = web.AppKey("reconciler", FeedReconciler)
HEALTH = web.AppKey("health", Health)

TRACE = web.RequestKey("trace", Trace)
