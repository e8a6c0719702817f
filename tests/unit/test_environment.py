"""What a process takes from its environment, and what it does not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from faust.types.enums import ProcessingGuarantee
from faust.types.settings import Settings as FaustSettings

from eshop import environment
from eshop.cluster.kafka import Kafka
from eshop.cluster.postgres import Postgres
from eshop.cluster.services import make_plan, parse_scale, service_env
from eshop.cluster.valkey import Valkey
from eshop.process.app import ServiceApp
from eshop.settings import Settings
from tests.unit.test_cluster_plan import parts_of

FOREIGN = {
    "http_proxy": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "grpc_proxy": "http://127.0.0.1:9",
    "WEB_PORT": "tcp://10.3.240.1:80",
    "PROCESSING_GUARANTEE": "exactly_once",
    "FAUST_CONSOLE_PORT": "tcp://10.3.240.1:80",
    "PGSSLMODE": "require",
    "PGSERVICE": "nosuch",
    "GRPC_VERBOSITY": "debug",
    "JAVA_TOOL_OPTIONS": "-XX:NoSuchOption",
    "_JAVA_OPTIONS": "-XX:NoSuchOption",
    "KAFKA_OPTS": "-XX:NoSuchOption",
    "CLASSPATH": "/nowhere",
    "PYTHONPATH": "/nowhere",
    "PYTHONWARNINGS": "error",
    "LC_ALL": "C",
    "LANG": "C",
}


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set variables of other programs."""
    for name, value in FOREIGN.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("foreign")
def test_children_get_none_of_other_programs_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESHOP_CURRENCY", "EUR")
    monkeypatch.setenv("LD_PRELOAD", "/nowhere/libnothing.so")
    plan = make_plan({}, parse_scale([]), ephemeral=True)
    parts = parts_of(plan, tmp_path)
    services = [service_env(service, plan, parts, tmp_path) for service in plan.services]
    servers = [dict(part.program().env) for part in (parts.kafka, parts.postgres, parts.valkey)]
    for env in (*services, *servers):
        assert not {name for name, value in FOREIGN.items() if env.get(name) == value} - {"LC_ALL"}
        assert env["PATH"] == os.environ["PATH"]
        assert (
            env["LD_PRELOAD"] == "/nowhere/libnothing.so"
        )  # an effect that nobody escapes is the same for all
    assert {env["ESHOP_CURRENCY"] for env in services} == {"EUR"}
    assert {env["LC_ALL"] for env in services} == {"C.UTF-8"}
    assert not any(name.startswith("ESHOP_") for env in servers for name in env)


@pytest.mark.parametrize(
    ("part", "locale"),
    [(Kafka, "C.UTF-8"), (Postgres, "C"), (Valkey, "C")],
    ids=["kafka", "postgres", "valkey"],
)
def test_parts_have_a_locale_that_names_every_folder(part: type, locale: str, tmp_path: Path) -> None:
    parts = parts_of(make_plan({}, parse_scale([]), ephemeral=True), tmp_path)
    found = next(one for one in (parts.kafka, parts.postgres, parts.valkey) if isinstance(one, part))
    assert found.program().env["LC_ALL"] == locale


@pytest.mark.usefixtures("foreign")
def test_a_workers_settings_are_ours_whatever_faust_is_told() -> None:
    app = ServiceApp("orders", Settings(web_listen="127.0.0.1:6999"))
    assert app.conf.web_port == 6999
    assert vars(app.conf)["_processing_guarantee"] is ProcessingGuarantee.AT_LEAST_ONCE
    assert str(app.conf.canonical_url) == "http://127.0.0.1:6999"


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({"web_listen": "127.0.0.2:7000"}, "http://127.0.0.2:7000"),
        ({"web_listen": "[::1]:7000"}, "http://[::1]:7000"),
        ({"web_listen": "0.0.0.0:7000", "web_advertised": "pod-7.shop:8080"}, "http://pod-7.shop:8080"),
        ({"web_advertised": "[fd00::7]:8080"}, "http://[fd00::7]:8080"),
    ],
)
def test_other_workers_find_a_worker_where_it_says(settings: dict[str, str], url: str) -> None:
    assert (
        str(ServiceApp("projections", Settings.model_validate(settings)).conf.canonical_url).rstrip("/")
        == url
    )


def test_every_variable_of_faust_is_known_as_foreign(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {str(param.env_name) for param in FaustSettings.SETTINGS.values() if param.env_name}
    monkeypatch.setattr(environment, "GIVEN", dict.fromkeys([*names, "PATH", "HOME", "ESHOP_KAFKA"], "x"))
    assert environment.ignored() == {"Faust's": sorted(names)}


@pytest.mark.parametrize(
    "start", ["eshop.process.app.ServiceApp('orders', Settings())", "eshop.cli.main.app(['version'])"]
)
def test_a_connection_is_what_its_address_says(start: str) -> None:
    code = f"""
import os, eshop.process.app, eshop.cli.main
from eshop.settings import Settings
try:
    {start}
except SystemExit:
    pass
import psycopg2
try:
    psycopg2.connect("postgresql://ann:ann@127.0.0.1:9/shop")
except psycopg2.OperationalError as error:
    print(error)
"""
    hostile = {
        "PGSSLMODE": "require",
        "PGSERVICE": "nosuch",
        "PGHOST": "10.3.240.1",
        "PGHOSTADDR": "10.3.240.1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **hostile},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert '"127.0.0.1", port 9 failed: Connection refused' in done.stdout
