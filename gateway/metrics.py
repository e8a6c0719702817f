"""All metrics of the gateway, in a registry of its own: one per app, not per process."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from gateway.cache import Outcome

_SECONDS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.0, 2.0, 4.0, 8.0, 30.0)
_CALL_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500)


class Metrics:
    """Counters and histograms by name. Labels are bounded: routes and codes, never paths or users."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "gateway_requests", "HTTP requests answered", ["method", "route", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "gateway_request_seconds",
            "From a request's headers to its answer",
            ["method", "route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.upstream_seconds = Histogram(
            "gateway_upstream_seconds",
            "Calls of the services",
            ["call", "code"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.dependency_up = Gauge(
            "gateway_dependency_up",
            "1 while a dependency answers within its second",
            ["dependency"],
            registry=registry,
        )
        self.circuit_open = Gauge(
            "gateway_circuit_open",
            "1 while calls of a service are refused because the last ones were not answered",
            ["service"],
            registry=registry,
        )
        self.creates_per_call = Histogram(
            "gateway_creates_per_call",
            "Orders gathered into one call",
            buckets=_CALL_SIZES,
            registry=registry,
        )
        self.cache = Counter("gateway_cache_reads", "Looks into the cache", ["outcome"], registry=registry)
        for outcome in Outcome:
            self.cache.labels(outcome.value)
        self.connections = Gauge("gateway_feed_connections", "Feeds being served", registry=registry)
        self.feed_closes = Counter("gateway_feed_closes", "Feeds ended by us", ["why"], registry=registry)
        self.frames = Counter("gateway_feed_frames", "Frames pushed", ["stream"], registry=registry)
        self.push_seconds = Histogram(
            "gateway_push_seconds",
            "From an event's time (the service's clock) to its frame's push",
            buckets=_SECONDS,
            registry=registry,
        )
        self.refills = Counter(
            "gateway_feed_refills", "Reads of history because of a gap or a newer head", registry=registry
        )
        self.events = Counter("gateway_events", "Events read from the topics", ["topic"], registry=registry)
        self.undecodable = Counter(
            "gateway_events_undecodable", "Messages passed over because they can't be read", registry=registry
        )
        self.unknown_types = Counter(
            "gateway_events_unknown_type",
            "Messages passed over because only newer versions know their type",
            registry=registry,
        )
        self.attached = Gauge(
            "gateway_events_attached", "1 while the event topics are being read", registry=registry
        )

    def count_cache(self, outcome: Outcome) -> None:
        """Count a look into the cache."""
        self.cache.labels(outcome.value).inc()

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)
