"""The shop's own processes: their ports, command lines and settings."""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from eshop.cluster.embedded import PartPorts, Parts
from eshop.cluster.errors import ClusterError
from eshop.cluster.ports import HOST, free_port, next_free_port, require_free
from eshop.cluster.probes import http_is_ready
from eshop.cluster.process import Program
from eshop.contracts.services import GATEWAY, SERVICES
from eshop.environment import child_environment, own_variables
from eshop.settings import DEFAULT_PORTS

INSTANCES_MAX = 16
STOP_SECONDS_MAX = 15.0
PART_PORTS = {"kafka": 9092, "kafka-controller": 9093, "postgres": 5432, "valkey": 6379}
#: Every port of a run by the name its flag has.
BASE_PORTS = (
    {kind: web for kind, (web, _grpc) in DEFAULT_PORTS.items()}
    | {f"{kind}-grpc": grpc for kind, (_web, grpc) in DEFAULT_PORTS.items() if grpc}
    | PART_PORTS
)


@dataclass(frozen=True, slots=True)
class Service:
    """An instance of a kind. The first is named after its kind, the next `KIND-2`."""

    name: str
    kind: str
    web_port: int
    grpc_port: int | None

    @property
    def ports(self) -> dict[str, int]:
        """The ports by protocol."""
        return {"http": self.web_port} | ({"grpc": self.grpc_port} if self.grpc_port else {})


@dataclass(frozen=True, slots=True)
class Plan:
    """All ports of a run."""

    parts: PartPorts
    services: tuple[Service, ...]

    def of_kind(self, kind: str) -> tuple[Service, ...]:
        """Return the instances of a kind."""
        return tuple(service for service in self.services if service.kind == kind)


def parse_scale(wanted: Iterable[str]) -> dict[str, int]:
    """Read `orders=2` and `orders=2,gateway=3`; raise ClusterError for an unknown kind or a bad number."""
    scale = dict.fromkeys(DEFAULT_PORTS, 1)
    for item in ",".join(wanted).split(","):
        if not item.strip():
            continue
        kind, _, count = item.strip().partition("=")
        if kind not in scale or not count.isdigit() or not 1 <= int(count) <= INSTANCES_MAX:
            raise ClusterError(
                f"--scale {item}: want KIND=N with KIND one of {', '.join(scale)} "
                f"and N from 1 to {INSTANCES_MAX}"
            )
        scale[kind] = int(count)
    return scale


def make_plan(chosen: Mapping[str, int | None], scale: Mapping[str, int], *, ephemeral: bool) -> Plan:
    """Give every process its ports: the chosen, else the documented ones, or free ones for an ephemeral run.

    Raises ClusterError if a chosen or documented port is taken, or chosen twice.
    """
    avoid = {port for port in chosen.values() if port}
    ports = {name: chosen.get(name) or (0 if ephemeral else base) for name, base in BASE_PORTS.items()}
    _require_distinct(ports)
    for name, port in ports.items():
        if port:
            require_free(port, name, f"--{name}-port")
    avoid.update(ports.values())
    ports = {name: port or free_port(avoid) for name, port in ports.items()}
    services = [_instance(kind, 1, ports, avoid) for kind in DEFAULT_PORTS]
    services += [
        _instance(kind, n, ports, avoid) for kind in DEFAULT_PORTS for n in range(2, scale[kind] + 1)
    ]
    parts = PartPorts(ports["kafka"], ports["kafka-controller"], ports["postgres"], ports["valkey"])
    return Plan(parts, tuple(sorted(services, key=lambda service: list(DEFAULT_PORTS).index(service.kind))))


def _require_distinct(ports: Mapping[str, int]) -> None:
    owner: dict[int, str] = {}
    for name, port in ports.items():
        if port and owner.setdefault(port, name) != name:
            raise ClusterError(f"port {port} is asked for twice: --{owner[port]}-port and --{name}-port")


def _instance(kind: str, number: int, ports: Mapping[str, int], avoid: set[int]) -> Service:
    web, grpc = ports[kind], ports.get(f"{kind}-grpc")
    if number == 1:
        return Service(kind, kind, web, grpc)
    return Service(
        f"{kind}-{number}",
        kind,
        next_free_port(web, avoid),
        next_free_port(grpc, avoid) if grpc else None,
    )


def service_program(service: Service, plan: Plan, parts: Parts, data: Path) -> Program:
    """Return how to run a service: by its public command line, in a folder of its own."""
    folder = data / "services" / service.name
    folder.mkdir(parents=True, exist_ok=True)
    words, path = ["gateway"], "/health/started"
    if service.kind != GATEWAY:
        path = "/health/ready"
        words = ["faust", "-L", "uvloop", "-A", f"eshop.{service.kind}", "worker", "-l", "info"]
    return Program(
        service.name,
        (sys.executable, "-m", *words),
        folder,
        lambda: http_is_ready(service.web_port, path),
        env=service_env(service, plan, parts, folder),
        stop_seconds_max=STOP_SECONDS_MAX,
    )


def service_env(service: Service, plan: Plan, parts: Parts, folder: Path) -> dict[str, str]:
    """Return the environment of a service: the caller's settings, overridden by the cluster's."""
    ours = {
        "ESHOP_KAFKA": parts.kafka.address,
        "ESHOP_REDIS_URL": parts.valkey.url,
        "ESHOP_ADMIN_DATABASE_URL": parts.postgres.admin_url,
        "ESHOP_DATA": str(folder),
        "ESHOP_INSTANCE": service.name,
        **{f"ESHOP_{name.upper()}_GRPC": _grpc_addresses(plan.of_kind(name)) for name in SERVICES},
        "ESHOP_WEB_LISTEN": f"{HOST}:{service.web_port}",
        "PYTHONUNBUFFERED": "1",
        "PYTHONUTF8": "1",
    }
    if service.kind in SERVICES:
        role = f"{service.kind}_app"
        ours["ESHOP_GRPC_LISTEN"] = f"{HOST}:{service.grpc_port}"
        ours["ESHOP_DATABASE_URL"] = f"postgresql://{role}:{role}@{HOST}:{plan.parts.postgres}/{service.kind}"
    return child_environment("C.UTF-8") | own_variables() | ours


def _grpc_addresses(services: Iterable[Service]) -> str:
    return ",".join(f"{HOST}:{service.grpc_port}" for service in services)
