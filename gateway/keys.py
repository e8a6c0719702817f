"""What the app and each request carry, by typed key."""

from aiohttp import web

from eshop.cache import VersionedStore
from eshop.settings import Settings
from gateway.creates import Creates
from gateway.heads import HeadsSweep
from gateway.health import Health
from gateway.history import ServicesHistory
from gateway.hub import Hub
from gateway.metrics import Metrics
from gateway.reads import Reads
from gateway.tracing import Trace
from gateway.upstream import Upstream
from gateway.waits import Waits

SETTINGS = web.AppKey("settings", Settings)
METRICS = web.AppKey("metrics", Metrics)
UPSTREAM = web.AppKey("upstream", Upstream)
STORE: web.AppKey[VersionedStore] = web.AppKey("store")
READS = web.AppKey("reads", Reads)
CREATES = web.AppKey("creates", Creates)
HISTORY = web.AppKey("history", ServicesHistory)
WAITS = web.AppKey("waits", Waits)
HUB = web.AppKey("hub", Hub)
SWEEP = web.AppKey("sweep", HeadsSweep)
HEALTH = web.AppKey("health", Health)

TRACE = web.RequestKey("trace", Trace)
