"""Makes docs/settings.md and docs/services.md from the code: ``make docs``. A test compares them."""

import pkgutil
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

from aiohttp.web import RouteTableDef
from google.protobuf.descriptor import ServiceDescriptor
from prometheus_client import Counter
from prometheus_client.metrics import MetricWrapperBase
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from eshop.contracts.proto import dead_letters_v1_pb2, timeline_v1_pb2
from eshop.contracts.services import (
    EVENT_TOPICS,
    GATEWAY,
    OTHER_HTTP_PORTS,
    PROJECTED,
    PROJECTIONS,
    SERVICES,
    Service,
)
from eshop.contracts.topics import Topic
from eshop.environment import PREFIX
from eshop.settings import Settings
from eshop.store.schema import schema_of
from gateway.metrics import Metrics
from gateway.routes import accounts, documents, operations, orders, socket

FOLDER = Path(__file__).parent
HEALTH = "`/health/live`, `/health/ready`, `/metrics`"
#: The rooms whose metrics a process has.
SERVICE_ROOMS = ("eshop.agents", "eshop.relay", "eshop.store")
PROJECTIONS_ROOMS = ("eshop.tables",)


def settings_page() -> str:
    """Return the page of all settings."""
    rows = [_setting(name, field) for name, field in sorted(Settings.model_fields.items())]
    return _page(
        "# Settings",
        "Every process reads its settings from environment variables at its start. All bad values are",
        "reported at once. A mistyped name is refused, and the nearest one is suggested. A setting without",
        "a variable is read from the file in `/run/secrets` with the variable's name in small letters.",
        "Defaults suit a machine for development.",
        "",
        "| variable | default | meaning |",
        "| --- | --- | --- |",
        *rows,
    )


def services_page() -> str:
    """Return the page of all services."""
    return _page(
        "# Services",
        "What each service has and does, from the catalogue (`eshop/contracts/services.py`) and the code.",
        "The projections workers and the gateway are no services: they own no data and publish nothing.",
        *(line for service in SERVICES.values() for line in _canvas(service)),
        *_projections_canvas(),
        *_gateway_canvas(),
    )


def _page(title: str, *lines: str) -> str:
    return "\n".join((title, "", "<!-- Made by `make docs`; changes are lost. -->", "", *lines, ""))


def _setting(name: str, field: FieldInfo) -> str:
    meaning = (field.description or "").replace("|", "\\|")
    return f"| `{PREFIX}{name.upper()}` | {_default(field.default)} | {meaning}{_choices(field)} |"


def _default(value: Any) -> str:
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    return "" if text is None or text == "" else f"`{text}`"


def _choices(field: FieldInfo) -> str:
    choices = [value for value in get_args(field.annotation) if isinstance(value, str)]
    bounds = [
        f"{word} {getattr(bound, name)}"
        for bound in field.metadata
        for name, word in (("ge", "from"), ("le", "to"))
        if getattr(bound, name, None) is not None
    ]
    if len(choices) > 1:
        return f" ({', '.join(choices)})"
    return f" ({' '.join(bounds)})" if bounds else ""


def _canvas(service: Service) -> Iterator[str]:
    proto = import_module(f"eshop.contracts.proto.{service.name}_v1_pb2")
    (own,) = proto.DESCRIPTOR.services_by_name.values()
    shared = [
        descriptor
        for module in (dead_letters_v1_pb2, timeline_v1_pb2)
        for descriptor in module.DESCRIPTOR.services_by_name.values()
    ]
    tables = schema_of(service.name).tables
    yield from ("", f"## {service.name}", "", service.purpose, "", "| | |", "| --- | --- |")
    yield f"| worker | `faust -A eshop.{service.name} worker` |"
    yield f"| HTTP | port {service.http_port}: {HEALTH} |"
    yield f"| gRPC | port {service.grpc_port}: {_methods(own)} |"
    yield f"| gRPC of every service | {', '.join(_methods(descriptor) for descriptor in shared)} |"
    yield f"| publishes | {_messages(service.events)} |"
    yield f"| reads | {'; '.join(_messages(topic) for topic in service.reads)} |"
    yield f"| dead letters | {_messages(service.dead_letters)} |"
    yield f"| consumer group | `{Settings().group(service.name)}` |"
    yield f"| database | `{service.name}`, as `{service.name}_app`: {_names(tables)} |"
    yield f"| rows are only added to | {_names(service.insert_only)} |"
    yield "| depends on | Kafka, its own Postgres database; on no other service |"
    yield "| ready if these answer | Kafka and its group, Postgres, the relay, gRPC |"
    yield f"| metrics | {_names(_metrics(SERVICE_ROOMS))} |"


def _projections_canvas() -> Iterator[str]:
    port = OTHER_HTTP_PORTS[PROJECTIONS]
    yield from (
        "",
        f"## {PROJECTIONS}",
        "",
        "Shows totals, a window and users' orders and wallets, from events alone.",
    )
    yield from ("", "| | |", "| --- | --- |", f"| worker | `faust -A eshop.{PROJECTIONS} worker` |")
    pages = ("totals", "window", "users/{user_id}")
    yield f"| HTTP | port {port}: {_names(f'/projections/{page}' for page in pages)}, {HEALTH} |"
    yield f"| reads | {'; '.join(_messages(topic) for topic in PROJECTED)} |"
    yield f"| consumer group | `{Settings().group(PROJECTIONS)}` |"
    yield "| depends on | Kafka; no database |"
    yield "| ready if these answer | Kafka and its group, the tables |"
    yield f"| metrics | {_names(_metrics(PROJECTIONS_ROOMS))} |"


def _gateway_canvas() -> Iterator[str]:
    tables = [module.api.routes for module in (accounts, orders, socket, documents)]
    yield from (
        "",
        f"## {GATEWAY}",
        "",
        "The clients' side: HTTP requests to calls of the services, events to WebSocket frames.",
    )
    yield from ("", "| | |", "| --- | --- |", "| process | `python -m gateway` |")
    yield f"| HTTP | port {OTHER_HTTP_PORTS[GATEWAY]}: {_names(_routes(tables))} |"
    yield f"| for operators | {_names(_routes([operations.api.routes]))} |"
    yield f"| reads, without a consumer group | {'; '.join(_messages(topic) for topic in EVENT_TOPICS)} |"
    yield f"| calls by gRPC | {_names(SERVICES)} |"
    yield f"| depends on | {', '.join(SERVICES)}, Kafka, a Redis-protocol cache |"
    yield f"| started if these have answered | {', '.join(SERVICES)}, Kafka |"
    yield f"| ready if one of these answers | {', '.join(SERVICES)} |"
    yield f"| metrics | {_names(_names_of(vars(Metrics()).values()))} |"


def _routes(tables: Iterable[RouteTableDef]) -> list[str]:
    return [f"{route.method} {route.path}" for table in tables for route in table]


def _metrics(rooms: Iterable[str]) -> list[str]:
    """Return the metrics of the rooms' modules, sorted."""
    modules = [
        import_module(module.name)
        for room in rooms
        for module in pkgutil.iter_modules(import_module(room).__path__, f"{room}.")
        if not module.ispkg
    ]
    return _names_of(value for module in modules for value in vars(module).values())


def _names_of(values: Iterable[Any]) -> list[str]:
    metrics = {value for value in values if isinstance(value, MetricWrapperBase)}
    return sorted(
        metric.describe()[0].name + ("_total" if isinstance(metric, Counter) else "") for metric in metrics
    )


def _methods(descriptor: ServiceDescriptor) -> str:
    return f"{descriptor.name} ({_names(method.name for method in descriptor.methods)})"


def _messages(topic: Topic) -> str:
    return f"`{topic.name}`: {', '.join(topic.messages)}"


def _names(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in names)


PAGES = {"settings.md": settings_page, "services.md": services_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page())
