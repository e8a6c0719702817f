"""Settings: where they come from, and what production refuses."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from eshop.settings import Settings, split_address

PRODUCTION = {
    "environment": "production",
    "service_token": "s3",
    "admin_database_url": "",
    "database_url": "postgresql://orders_app:s3@postgres:5432/orders",
    "redis_url": "redis://:s3@redis:6379/0",
}
KNOWN = {
    "service_token": "development-service-token",
    "admin_database_url": "postgresql://postgres:postgres@postgres:5432/postgres",
    "database_url": "postgresql://orders_app:orders_app@postgres:5432/orders",
    "redis_url": "redis://redis:6379/0",
}


def refused(values: dict[str, str]) -> set[str]:
    """Return the names of the settings that are refused."""
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate(values)
    return {str(error["loc"][0]) for error in caught.value.errors()}


def test_production_takes_secrets_of_its_own() -> None:
    assert Settings.model_validate(PRODUCTION).environment == "production"


def test_production_refuses_all_that_everybody_knows_at_once() -> None:
    assert refused(PRODUCTION | KNOWN) == set(KNOWN)


def test_production_has_no_defaults_for_secrets() -> None:
    assert refused({"environment": "production"}) == set(KNOWN) - {"database_url"}
    settings = Settings.model_validate(PRODUCTION | {"database_url": None})
    with pytest.raises(ValueError, match="ESHOP_DATABASE_URL is not set"):
        settings.service_database_url("orders")


@pytest.mark.parametrize("module", ["eshop.orders", "gateway"])
def test_a_process_ends_at_once_and_says_why(module: str) -> None:
    command = [
        sys.executable,
        "-c",
        f"from runpy import run_module; run_module('{module}', run_name='__main__')",
    ]
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={"ESHOP_ENVIRONMENT": "production"},
    )
    assert done.returncode == 1
    assert "service_token\n  Value error, production needs a token of its own" in done.stderr


def test_more_copies_in_sync_than_copies_are_refused() -> None:
    assert refused({"topic_replication": "1", "topic_min_in_sync": "2"}) == {"topic_min_in_sync"}


def test_what_no_variable_sets_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "eshop_service_token").write_text("from a file\n")
    settings = Settings(_secrets_dir=tmp_path)
    assert settings.service_token.get_secret_value() == "from a file"
    assert "from a file" not in repr(settings)


def messages(monkeypatch: pytest.MonkeyPatch, **variables: str) -> list[str]:
    """Return what is said of the environment's variables; nothing if they will do."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    try:
        Settings()
    except ValidationError as refused:
        return [error["msg"] for error in refused.errors()]
    return []


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("ESHOP_LOG_LEVLE", "ESHOP_LOG_LEVEL"),
        ("ESHOP_ORDERS_GPRC", "ESHOP_ORDERS_GRPC"),
        ("ESHOP_KFKA", "ESHOP_KAFKA"),
        ("ESHOP_REDIS_PORT", "ESHOP_REDIS_URL"),
    ],
)
def test_a_mistyped_name_is_refused_and_the_nearest_is_said(
    monkeypatch: pytest.MonkeyPatch, name: str, nearest: str
) -> None:
    (said,) = messages(monkeypatch, **{name: "x"})
    assert f"{name} is no setting, did you mean {nearest}?" in said


@pytest.mark.parametrize(
    "variables",
    [
        {"ESHOP_TESTS_FAIL_ON_SKIP": "1", "ESHOP_FAULTS_SEED": "1"},
        {"ESHOP_ORDERS_DATABASE_URL": "postgresql://x", "ESHOP_CRASH_POINTS": "/tmp"},
        {
            "ESHOP_SERVICE_HOST": "10.3.240.2",
            "ESHOP_SERVICE_PORT": "8000",
            "ESHOP_PORT": "tcp://10.3.240.2:8000",
        },
        {"ESHOP_KAFKA_SERVICE_PORT_CLIENTS": "9092", "ESHOP_KAFKA_PORT_9092_TCP_ADDR": "10.3.240.2"},
        {"eshop_currency": "EUR"},
    ],
)
def test_other_names_with_our_prefix_have_their_right(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    assert messages(monkeypatch, **variables) == []


@pytest.mark.parametrize("token", ["tökén", "a\nb", "a\tb", ""])
def test_a_token_that_no_header_can_carry_is_refused(token: str) -> None:
    assert refused({"service_token": token}) == {"service_token"}


def test_space_around_a_value_is_no_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESHOP_SERVICE_TOKEN", "s3\n")
    monkeypatch.setenv("ESHOP_DATABASE_URL", "postgresql://orders_app:s3@postgres:5432/orders\r\n")
    monkeypatch.setenv("ESHOP_KAFKA", " kafka:9092\n")
    settings = Settings()
    assert settings.service_token.get_secret_value() == "s3"
    assert settings.service_database_url("orders").endswith("/orders")
    assert settings.kafka == "kafka:9092"


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("127.0.0.1:8000", ("127.0.0.1", 8000)),
        ("[::1]:8000", ("::1", 8000)),
        ("[fe80::1%eth0]:8000", ("fe80::1%eth0", 8000)),
        ("orders-a.shop_1:0", ("orders-a.shop_1", 0)),
    ],
)
def test_an_address_has_a_host_and_a_port(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize(
    "address",
    [
        "8000",
        ":8000",
        "::1:8000",
        "[::1]",
        "[::1:8000",
        "host:",
        "host:port",
        "host:65536",
        "a b:1",
        "http://a:1",
    ],
)
def test_what_is_no_address_is_refused_by_the_settings_name(address: str) -> None:
    for name in ("web_listen", "grpc_listen", "web_advertised", "orders_grpc", "payments_grpc"):
        assert refused({name: address}) == {name}


def test_no_address_is_the_default_where_there_is_one() -> None:
    assert Settings(web_listen="").web_address("gateway") == ("127.0.0.1", 8000)
    assert refused({"orders_grpc": ""}) == {"orders_grpc"}


def test_each_of_several_addresses_is_looked_at() -> None:
    two = "orders-a:50051, orders-b:50051"
    assert Settings(orders_grpc=two).grpc_addresses("orders") == two
    assert refused({"orders_grpc": "orders-a:50051,,orders-b:50051"}) == {"orders_grpc"}
    assert refused({"payments_grpc": "orders-a:50051,orders-b"}) == {"payments_grpc"}
