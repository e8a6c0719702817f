"""The containers' files, read without an engine: what they say is what the code reads, in every mode."""

import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from eshop.cluster.jars import KAFKA_VERSION
from eshop.contracts.services import SERVICES
from eshop.settings import DEFAULT_PORTS, KNOWN_PASSWORDS, KNOWN_TOKEN, Settings

ROOT = Path(__file__).parents[2]
BASE = ("docker/compose.parts.yaml", "docker/compose.shop.yaml")
REPLICATED = "docker/compose.replicated.yaml"
PRODUCTION = "docker/compose.production.yaml"
MODES = {
    "development": BASE,
    "replicated": (*BASE, REPLICATED),
    "production": (*BASE, PRODUCTION),
    "production, replicated": (*BASE, PRODUCTION, REPLICATED),
}
ONCE = {*(f"migrate-{name}" for name in SERVICES), "topics"}
PUBLISHED = {"8000", "6068", "8080", "5432", "6379", "9092"}

Services = dict[str, dict[str, Any]]


class Reset:
    """What a later file takes away."""


class Override(list[Any]):
    """A list that replaces the one before it."""


class Loader(yaml.SafeLoader):
    """Knows Compose's two tags."""

    def reset(self, _node: yaml.Node) -> Reset:
        return Reset()

    def override(self, node: yaml.SequenceNode) -> Override:
        return Override(self.construct_sequence(node))


Loader.add_constructor("!reset", Loader.reset)
Loader.add_constructor("!override", Loader.override)


def load(name: str) -> dict[str, Any]:
    return dict(yaml.load((ROOT / name).read_text(), Loader))


def merged(before: Any, after: Any) -> Any:
    """Lay one file over another as Compose does."""
    if isinstance(before, dict) and isinstance(after, dict):
        both = before | {name: merged(before.get(name), value) for name, value in after.items()}
        return {name: value for name, value in both.items() if not isinstance(value, Reset)}
    if isinstance(after, Override):
        return list(after)
    if isinstance(before, list) and isinstance(after, list):
        return before + after
    return after


def services_of(*names: str) -> Services:
    result: Services = {}
    for name in names:
        services = load(name)["services"]
        for key, service in services.items():
            if "command" in service:  # replaced, not appended
                service["command"] = Override(service["command"])
            if base := service.pop("extends", None):
                services[key] = merged(load(base["file"])["services"][base["service"]], service)
        result = merged(result, services)
    return result


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def services(mode: str) -> Services:
    return services_of(*MODES[mode])


def ours(services: Services) -> Services:
    return {name: service for name, service in services.items() if service["image"].startswith("eshop:")}


@pytest.fixture(scope="session")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the project's own script makes."""
    folder = tmp_path_factory.mktemp("docker")
    for name in ("make-secrets.sh", "compose.production.yaml"):
        shutil.copy(ROOT / "docker" / name, folder)
    for expected in (0, 1):  # never twice
        done = subprocess.run(
            ["sh", folder / "make-secrets.sh"], check=False, capture_output=True, timeout=20
        )
        assert done.returncode == expected
    return folder / "secrets"


def settings_of(
    service: dict[str, Any], secrets: Path, mounted: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """Return the settings as a process of the service reads them."""
    mounted.mkdir()
    declared = load(PRODUCTION)["secrets"]
    for secret in service.get("secrets", ()):
        file = Path(declared[secret["source"]]["file"])
        assert file.parent == Path("docker/secrets")
        shutil.copy(secrets / file.name, mounted / secret["target"])
    for name, value in service["environment"].items():
        monkeypatch.setenv(name, str(value))
    return Settings(_secrets_dir=mounted)


def test_the_root_file_is_made_of_these() -> None:
    assert tuple(load("compose.yaml")["include"]) == BASE


def test_every_variable_is_a_setting(services: Services) -> None:
    names = {name for service in ours(services).values() for name in service["environment"]}
    assert names <= {f"ESHOP_{field.upper()}" for field in Settings.model_fields}


def test_every_process_starts_with_its_variables_and_secrets(
    mode: str, services: Services, secrets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, service in ours(services).items():
        with monkeypatch.context() as patch:
            settings = settings_of(service, secrets, tmp_path / name, patch)
        assert settings.environment == ("production" if "production" in mode else "development")
        copies = 3 if "replicated" in mode and not name.startswith("migrate-") else 1
        assert settings.topic_replication == copies
        database = name.removeprefix("migrate-")
        if database in SERVICES:
            assert settings.service_database_url(database).endswith(f"@postgres:5432/{database}")
        assert (settings.admin_url() is not None) == name.startswith("migrate-")


@pytest.mark.parametrize("kind", DEFAULT_PORTS)
def test_processes_listen_and_are_asked_where_the_settings_say(
    kind: str, services: Services, secrets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web, grpc = DEFAULT_PORTS[kind]
    settings = settings_of(services[kind], secrets, tmp_path / kind, monkeypatch)
    assert settings.web_address(kind) == ("0.0.0.0", web)
    path = ["/health/started"] if kind == "gateway" else []
    assert services[kind]["healthcheck"]["test"][2:] == ["/usr/local/lib/eshop/ready.sh", str(web), *path]
    if grpc:
        assert settings.grpc_address(kind) == f"0.0.0.0:{grpc}"
        assert services["gateway"]["environment"][f"ESHOP_{kind.upper()}_GRPC"] == f"{kind}:{grpc}"
    if kind in ("gateway", "projections"):
        proxied = re.findall(r"server-template \S+ \d+ (\S+)", (ROOT / "docker/haproxy.cfg").read_text())
        assert f"{kind}:{web}" in proxied


def test_ports_are_published_on_loopback_and_in_production_only_the_proxys(
    mode: str, services: Services
) -> None:
    published = [port.rsplit(":", 2) for service in services.values() for port in service.get("ports", ())]
    assert {address for address, _port, _inside in published} == {"127.0.0.1"}
    expected = {"8000"} if "production" in mode else PUBLISHED - ({"9092"} if mode == "replicated" else set())
    assert {port for _address, port, _inside in published} == expected


def test_production_knows_no_password(mode: str, services: Services) -> None:
    known = re.compile(rf":({'|'.join(KNOWN_PASSWORDS)})@|{KNOWN_TOKEN}|'POSTGRES_PASSWORD'")
    assert bool(known.search(str(services))) == ("production" not in mode)


def test_every_image_has_a_version(services: Services) -> None:
    dockerfile = (ROOT / "docker/Dockerfile").read_text()
    bases = set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE))
    assert len(bases) == 1
    for image in {service["image"] for service in services.values()} | bases:
        assert re.search(r":v?\d+(\.\d+)+(-[a-z]+[\d.]*)*$", image), image
    assert services["kafka"]["image"].endswith(f":{KAFKA_VERSION}")
    assert {service["image"] for service in ours(services).values()} == {f"eshop:{metadata.version('eshop')}"}


def test_everyone_waits_for_what_it_needs(services: Services) -> None:
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if needed in ONCE else "service_healthy"
            assert how == {"condition": wanted}, (name, needed)
            assert needed in services


def test_nobody_waits_for_projections(services: Services) -> None:
    assert not [name for name, service in services.items() if "projections" in service.get("depends_on", {})]


def test_every_service_is_watched_bounded_and_confined(services: Services) -> None:
    for name, service in services.items():
        assert service["restart"] == ("on-failure:5" if name in ONCE else "unless-stopped"), name
        assert ("healthcheck" in service) == (name not in ONCE), name
        assert {"memory", "pids"} <= set(service["deploy"]["resources"]["limits"]), name
        assert "no-new-privileges:true" in service["security_opt"], name
    for name, service in ours(services).items():
        assert service["init"], name
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name


def test_the_image_runs_as_nobody_in_particular() -> None:
    users = re.findall(r"^USER (\d+)$", (ROOT / "docker/Dockerfile").read_text(), re.MULTILINE)
    assert users == ["10001"]
