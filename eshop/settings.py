"""Every setting of every process, read from the environment once and nowhere else."""

import re
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, create_model, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from eshop.contracts.limits import CURRENCY_PATTERN
from eshop.contracts.services import AUDITED, OTHER_HTTP_PORTS, SERVICES
from eshop.environment import PREFIX, is_of_kubernetes, own_variables

#: Default ports by kind of process: (HTTP port, gRPC port).
DEFAULT_PORTS: dict[str, tuple[int, int | None]] = {
    **{service.name: (service.http_port, service.grpc_port) for service in SERVICES.values()},
    **{name: (http_port, None) for name, http_port in OTHER_HTTP_PORTS.items()},
}
#: A service's settings for its callers and its audit, by the service's name.
_GRPC = {name: f"{name}_grpc" for name in SERVICES}
_DATABASES = {service.name: f"{service.name}_database_url" for service in AUDITED}
#: The folder of container engines for secrets: a file per setting, named as its variable in small letters.
SECRETS_FOLDER = Path("/run/secrets")
#: The values of the defaults and of the compose files for development: everybody knows them.
KNOWN_TOKEN = "development-service-token"  # noqa: S105
KNOWN_PASSWORDS = frozenset({"postgres", *(f"{name}_app" for name in SERVICES)})
PORT_MAX = 65_535
#: Variables of test harnesses begin with these; no setting's name does.
HARNESS_PREFIXES = ("ESHOP_TESTS_", "ESHOP_FAULTS_")
#: The form of a value that a gRPC header can carry.
_TOKEN = re.compile(r"[!-~]([ -~]*[!-~])?")
#: The addresses of all interfaces: good for listening, not for calling.
ANY_HOSTS = frozenset({"0.0.0.0", "::"})  # noqa: S104  compared, not bound


def _service_fields() -> dict[str, Any]:
    addresses = {
        _GRPC[name]: (
            str,
            Field(
                f"127.0.0.1:{service.grpc_port}", description=f"addresses of {name} workers, comma-separated"
            ),
        )
        for name, service in SERVICES.items()
    }
    databases = {
        field: (
            SecretStr | None,
            Field(None, description=f"the {name} database, as `eshop audit` reads it"),
        )
        for name, field in _DATABASES.items()
    }
    return addresses | databases


if TYPE_CHECKING:
    _PerService = BaseSettings
else:
    _PerService = create_model("_PerService", __base__=BaseSettings, **_service_fields())


class Settings(_PerService):
    """One frozen object. All bad values are reported at once, and secrets never show in the report.

    A variable's name is the field's with the prefix ``ESHOP_``; an unknown name with the prefix is refused,
    and the nearest name is suggested. Defaults suit a development machine. A field without a variable is read
    from a file in ``SECRETS_FOLDER``. Space around a value is dropped.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        hide_input_in_errors=True,
        str_strip_whitespace=True,
        secrets_dir=SECRETS_FOLDER if SECRETS_FOLDER.is_dir() else None,
    )

    #: The first field: the validation of the others depends on it.
    environment: Literal["development", "production"] = Field(
        "development", description="production: refuse to start with a password or token that everybody knows"
    )

    database_url: SecretStr | None = Field(
        None,
        description="the service's own database, as its run-time role; has a default in development",
    )
    admin_database_url: SecretStr | None = Field(
        SecretStr("postgresql://postgres:postgres@127.0.0.1:5432/postgres"),
        description="creates databases and roles when a worker starts; empty if `eshop migrate` has done so",
    )
    kafka: str = Field("127.0.0.1:9092", description="bootstrap servers, comma-separated")
    redis_url: SecretStr = Field(SecretStr("redis://127.0.0.1:6379/0"), description="the gateway's cache")
    auth: Literal["header"] = Field("header", description="header: the user is in X-User-Id")
    allowed_origins: str = Field(
        "",
        description="further origins of web pages that may open WebSockets, comma-separated",
    )
    idempotency_required: bool = Field(False, description="refuse a POST without an Idempotency-Key")
    service_token: SecretStr = Field(
        SecretStr(KNOWN_TOKEN), description="the token that callers of gRPC send"
    )
    currency: str = Field(
        "USD", pattern=CURRENCY_PATTERN, description="the currency of a request without one"
    )
    data: Path = Field(Path(".eshop"), description="folder for everything a run keeps on disk")
    topic_replication: int = Field(
        1, ge=1, le=16, description="copies of every topic, at most the number of brokers"
    )
    topic_min_in_sync: int = Field(
        1, ge=1, le=16, description="copies that must have a message before the message counts as sent"
    )
    drain_seconds: float = Field(
        0,
        ge=0,
        le=60,
        description="how long a stopping gateway is unready and still serves: longer than a proxy takes "
        "to notice, or 0 without a proxy",
    )
    topic_prefix: str = Field(
        "",
        pattern=r"^[a-z0-9.-]*$",
        description="start of each topic's name, for shops that share a broker",
    )
    group_suffix: str = Field(
        "",
        pattern=r"^[a-z0-9.-]*$",
        description="end of each consumer group's name, for shops that share a broker",
    )
    instance: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9._-]+$",
        max_length=249,
        description="static-membership id: a worker that restarts with its id keeps its partitions",
    )
    java: str = Field("auto", description="the Java that runs Kafka: auto, system, wheel, or a path")
    cache: Path | None = Field(None, description="folder of downloaded jars; the OS user's cache if unset")
    web_listen: str | None = Field(
        None, description="HOST:PORT of HTTP; the default port of the process if unset"
    )
    web_advertised: str | None = Field(
        None,
        description="HOST:PORT for other projections workers; ESHOP_WEB_LISTEN if unset",
    )
    grpc_listen: str | None = Field(
        None, description="HOST:PORT of gRPC; the default port of the service if unset"
    )
    grpc_reflection: bool = Field(True, description="serve gRPC reflection, for tools such as grpcurl")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="the lowest level that is logged"
    )
    crash_points: Path | None = Field(
        None, description="folder by which tests choose a crash point: eshop/crash_points.py"
    )
    order_deadline_seconds: int = Field(
        60,
        ge=1,
        le=86_400,
        description="age of a NEW order after which its cancellation is requested, until it is final",
    )

    @model_validator(mode="before")
    @classmethod
    def _names_are_known(cls, values: Any) -> Any:
        known = {f"{PREFIX}{field}".upper() for field in cls.model_fields}
        strange = [
            name.upper()
            for name, value in own_variables().items()
            if name.upper() not in known
            and not name.startswith(HARNESS_PREFIXES)
            and not is_of_kubernetes(name, value)
        ]
        if strange:
            raise ValueError("; ".join(_strange(name, known) for name in sorted(strange)))
        return values

    @field_validator(*_GRPC.values())
    @classmethod
    def _are_addresses(cls, addresses: str) -> str:
        for address in addresses.split(","):
            split_address(address.strip())
        return addresses

    @field_validator("web_listen", "grpc_listen", "web_advertised")
    @classmethod
    def _is_address(cls, address: str | None) -> str | None:
        if not address:
            return None
        split_address(address)
        return address

    @field_validator("service_token")
    @classmethod
    def _token_fits_a_header(cls, token: SecretStr) -> SecretStr:
        if not _TOKEN.fullmatch(token.get_secret_value()):
            raise ValueError("want ASCII characters, and at least one")
        return token

    @field_validator("service_token")
    @classmethod
    def _token_is_secret(cls, token: SecretStr, info: ValidationInfo) -> SecretStr:
        if _is_production(info) and token.get_secret_value() in ("", KNOWN_TOKEN):
            raise ValueError("production needs a token of its own, not the development default")
        return token

    @field_validator("database_url", "admin_database_url", *_DATABASES.values(), "redis_url")
    @classmethod
    def _password_is_secret(cls, url: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if not _is_production(info) or url is None or not url.get_secret_value():
            return url
        if (urlsplit(url.get_secret_value()).password or "") in KNOWN_PASSWORDS | {""}:
            raise ValueError(
                "production needs an address with a password of its own, not a development default"
            )
        return url

    @field_validator("topic_min_in_sync")
    @classmethod
    def _copies_suffice(cls, least: int, info: ValidationInfo) -> int:
        if least > info.data.get("topic_replication", least):
            raise ValueError("more copies than ESHOP_TOPIC_REPLICATION makes: nothing could ever be sent")
        return least

    def service_database_url(self, service: str) -> str:
        """Return the address of the service's database for its run-time role."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        if self.environment == "production":
            raise ValueError(f"ESHOP_DATABASE_URL is not set: production has no default for {service}")
        return f"postgresql://{service}_app:{service}_app@127.0.0.1:5432/{service}"

    def grpc_addresses(self, service: str) -> str:
        """Return the addresses of a service's workers, comma-separated."""
        addresses: str = getattr(self, _GRPC[service])
        return addresses

    def names_grpc(self, service: str) -> bool:
        """Tell whether the addresses of a service were set, and are not the default."""
        return _GRPC[service] in self.model_fields_set

    def audited_database_url(self, service: str) -> str | None:
        """Return the configured address of the service's database for the audit, or None."""
        url: SecretStr | None = getattr(self, _DATABASES[service])
        return url.get_secret_value() if url else None

    def admin_url(self) -> str | None:
        """Return the administrator's address, or None if databases must exist."""
        url = self.admin_database_url.get_secret_value() if self.admin_database_url else ""
        return url or None

    def web_address(self, kind: str) -> tuple[str, int]:
        """Return host and port of the process's HTTP server."""
        return split_address(self.web_listen or f"127.0.0.1:{DEFAULT_PORTS[kind][0]}")

    def grpc_address(self, kind: str) -> str:
        """Return HOST:PORT of the process's gRPC server."""
        return self.grpc_listen or f"127.0.0.1:{DEFAULT_PORTS[kind][1]}"

    def topic(self, name: str) -> str:
        """Return the name on the broker of a topic of the catalogue."""
        return self.topic_prefix + name

    def group(self, service: str) -> str:
        """Return the consumer group of a service."""
        return f"eshop-{service}{self.group_suffix}"


def _is_production(info: ValidationInfo) -> bool:
    return info.data.get("environment") == "production"


def _strange(name: str, known: set[str]) -> str:
    nearest = get_close_matches(name, known, 1)
    return f"{name} is no setting" + (f", did you mean {nearest[0]}?" if nearest else "")


def split_address(address: str) -> tuple[str, int]:
    """Split HOST:PORT, in which an IPv6 HOST is in brackets; raise ValueError if it is malformed."""
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+(?:%\w+)?)\]|([^\s:\[\]/]+)):(\d{1,5})", address)
    if found is None or int(found[3]) > PORT_MAX:
        raise ValueError(f"{address!r} is not HOST:PORT")
    return found[1] or found[2], int(found[3])
