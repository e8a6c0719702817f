"""Which processes a run has, on which ports, with which settings."""

import os
import socket
from pathlib import Path

import pytest

from eshop.cluster.embedded import PartPorts, Parts
from eshop.cluster.errors import ClusterError
from eshop.cluster.java import Java
from eshop.cluster.kafka import Kafka
from eshop.cluster.ports import free_port, holder_of, is_taken, require_free
from eshop.cluster.postgres import Postgres
from eshop.cluster.services import BASE_PORTS, Plan, make_plan, parse_scale, service_env, service_program
from eshop.cluster.valkey import Valkey
from eshop.contracts.services import SERVICES
from eshop.settings import DEFAULT_PORTS

ONE_EACH = dict.fromkeys(DEFAULT_PORTS, 1)


def all_ports(plan: Plan) -> list[int]:
    parts = plan.parts
    own = [port for service in plan.services for port in service.ports.values()]
    return [*own, parts.kafka, parts.kafka_controller, parts.postgres, parts.valkey]


def parts_of(plan: Plan, folder: Path) -> Parts:
    return Parts(
        Kafka(folder, plan.parts.kafka, plan.parts.kafka_controller, folder, Java(folder, 17, "system")),
        Postgres(folder, plan.parts.postgres),
        Valkey(folder, plan.parts.valkey),
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ONE_EACH),
        (["orders=2"], ONE_EACH | {"orders": 2}),
        (["orders=2,gateway=3", "payments=2"], ONE_EACH | {"orders": 2, "gateway": 3, "payments": 2}),
    ],
)
def test_scale_is_repeatable_and_comma_separated(words: list[str], expected: dict[str, int]) -> None:
    assert parse_scale(words) == expected


@pytest.mark.parametrize("word", ["kafka=2", "orders", "orders=0", "orders=99", "orders=two", "=2"])
def test_scale_of_nonsense_is_refused(word: str) -> None:
    with pytest.raises(ClusterError, match="want KIND=N"):
        parse_scale([word])


def test_ephemeral_run_has_free_distinct_ports() -> None:
    plan = make_plan({}, parse_scale(["orders=3,gateway=2"]), ephemeral=True)
    ports = all_ports(plan)
    assert len(set(ports)) == len(ports) == 4 + 2 * (len(SERVICES) + 2) + 1 + 2
    assert not set(ports) & set(BASE_PORTS.values())


def test_documented_ports_are_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eshop.cluster.ports.is_taken", lambda _port: False)
    plan = make_plan({}, ONE_EACH, ephemeral=False)
    assert plan.parts == PartPorts(kafka=9092, kafka_controller=9093, postgres=5432, valkey=6379)
    found = {service.name: tuple(service.ports.values()) for service in plan.services}
    assert found == {
        **{name: (service.http_port, service.grpc_port) for name, service in SERVICES.items()},
        "projections": (6068,),
        "gateway": (8000,),
    }
    assert (found["orders"], found["payments"]) == ((6066, 50051), (6067, 50052))


def test_further_instances_get_the_next_free_ports_after_the_base_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free = [port for port in range(6066, 6166) if port not in BASE_PORTS.values()]
    free_grpc = [port for port in range(50051, 50151) if port not in BASE_PORTS.values()]
    monkeypatch.setattr("eshop.cluster.ports.is_taken", lambda port: port == free[0])
    plan = make_plan({}, parse_scale(["orders=3"]), ephemeral=False)
    assert [(s.name, s.web_port, s.grpc_port) for s in plan.of_kind("orders")] == [
        ("orders", 6066, 50051),
        ("orders-2", free[1], free_grpc[0]),
        ("orders-3", free[2], free_grpc[1]),
    ]


def test_a_port_chosen_twice_is_refused() -> None:
    with pytest.raises(ClusterError, match="asked for twice: --orders-port and --payments-port"):
        make_plan({"orders": 25_001, "payments": 25_001}, ONE_EACH, ephemeral=True)


def test_taken_port_is_reported_with_its_holder_and_the_flag_that_moves_it() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        assert is_taken(port)
        holder = holder_of(port)
        with pytest.raises(ClusterError) as caught:
            require_free(port, "postgres", "--postgres-port")
    assert f"port {port} (postgres) is taken by {holder}" in str(caught.value)
    assert holder is None or f"process {os.getpid()}" in holder
    assert "--postgres-port PORT" in str(caught.value)
    assert not is_taken(port)


def test_free_ports_are_not_drawn_twice() -> None:
    avoid: set[int] = set()
    assert len({free_port(avoid) for _ in range(20)}) == len(avoid) == 20


def test_every_process_is_told_all_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESHOP_CURRENCY", "EUR")
    plan = make_plan({}, parse_scale(["orders=2"]), ephemeral=True)
    parts = parts_of(plan, tmp_path)
    first, second = plan.of_kind("orders")
    addresses = f"127.0.0.1:{first.grpc_port},127.0.0.1:{second.grpc_port}"
    for service in plan.services:
        env = service_env(service, plan, parts, tmp_path)
        assert env["ESHOP_ORDERS_GRPC"] == addresses
        assert env["ESHOP_KAFKA"] == f"127.0.0.1:{plan.parts.kafka}"
        assert env["ESHOP_WEB_LISTEN"] == f"127.0.0.1:{service.web_port}"
        assert env["ESHOP_CURRENCY"] == "EUR"
    env = service_env(second, plan, parts, tmp_path)
    assert env["ESHOP_GRPC_LISTEN"] == f"127.0.0.1:{second.grpc_port}"
    assert env["ESHOP_DATABASE_URL"] == (
        f"postgresql://orders_app:orders_app@127.0.0.1:{plan.parts.postgres}/orders"
    )


def test_workers_are_started_by_the_plain_faust_command_line(tmp_path: Path) -> None:
    plan = make_plan({}, ONE_EACH, ephemeral=True)
    words = {
        service.name: " ".join(service_program(service, plan, parts_of(plan, tmp_path), tmp_path).argv[1:])
        for service in plan.services
    }
    assert words == {
        **{name: f"-m faust -L uvloop -A eshop.{name} worker -l info" for name in (*SERVICES, "projections")},
        "gateway": "-m gateway",
    }


def test_only_data_that_is_removed_at_the_end_may_be_lost_with_the_power(tmp_path: Path) -> None:
    assert "fsync=on" in Postgres(tmp_path, 5432).program().argv
    assert "fsync=off" in Postgres(tmp_path, 5432, ephemeral=True).program().argv
