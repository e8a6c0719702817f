"""Typed keys of what the app and a request carry. It imports only types, so that every room may import it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from eshop.settings import Settings
    from gateway.cache import VersionedStore
    from gateway.feed.hub import Hub
    from gateway.feed.reconcile import FeedReconciler
    from gateway.health import Health
    from gateway.http.tracing import Trace
    from gateway.metrics import Metrics
    from gateway.services.cached_reads import CachedReads
    from gateway.services.history import ServicesHistory
    from gateway.services.order_batcher import OrderBatcher
    from gateway.services.order_waiter import OrderWaiter
    from gateway.services.upstream import Upstream

SETTINGS: "web.AppKey[Settings]" = web.AppKey("settings")
METRICS: "web.AppKey[Metrics]" = web.AppKey("metrics")
UPSTREAM: "web.AppKey[Upstream]" = web.AppKey("upstream")
STORE: "web.AppKey[VersionedStore]" = web.AppKey("store")
CACHED_READS: "web.AppKey[CachedReads]" = web.AppKey("cached_reads")
ORDER_BATCHER: "web.AppKey[OrderBatcher]" = web.AppKey("order_batcher")
HISTORY: "web.AppKey[ServicesHistory]" = web.AppKey("history")
ORDER_WAITER: "web.AppKey[OrderWaiter]" = web.AppKey("order_waiter")
HUB: "web.AppKey[Hub]" = web.AppKey("hub")
RECONCILER: "web.AppKey[FeedReconciler]" = web.AppKey("reconciler")
HEALTH: "web.AppKey[Health]" = web.AppKey("health")
DOCUMENTS: "web.AppKey[Mapping[str, bytes]]" = web.AppKey("documents")

TRACE: "web.RequestKey[Trace]" = web.RequestKey("trace")
