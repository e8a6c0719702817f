"""Every setting of every process, read from the environment once and nowhere else."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

#: Where each kind of process listens unless told otherwise: (HTTP port, gRPC port).
DEFAULT_PORTS: dict[str, tuple[int, int | None]] = {
    "orders": (6066, 50051),
    "payments": (6067, 50052),
    "projections": (6068, None),
    "gateway": (8000, None),
}


class Settings(BaseSettings):
    """One frozen object. All bad values are reported at once, and secrets never show in the report.

    Names are the fields' with the prefix ``ESHOP_``. Defaults suit one development machine.
    """

    model_config = SettingsConfigDict(env_prefix="ESHOP_", frozen=True, hide_input_in_errors=True)

    database_url: SecretStr | None = Field(
        None, description="the service's own database, as its run-time role; a development default if unset"
    )
    admin_database_url: SecretStr | None = Field(
        SecretStr("postgresql://postgres:postgres@127.0.0.1:5432/postgres"),
        description="creates databases and roles at start; empty where `eshop migrate` did so before",
    )
    kafka: str = Field("127.0.0.1:9092", description="bootstrap servers, comma-separated")
    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    orders_grpc: str = Field("127.0.0.1:50051", description="the orders workers' addresses, comma-separated")
    payments_grpc: str = Field(
        "127.0.0.1:50052", description="addresses of payments workers, comma-separated"
    )
    auth: Literal["header"] = Field("header", description="header: X-User-Id names the user")
    allowed_origins: str = Field(
        "", description="web pages that may open sockets besides the gateway's own, comma-separated origins"
    )
    idempotency_required: bool = Field(False, description="refuse a POST without an Idempotency-Key")
    service_token: SecretStr = Field(
        SecretStr("development-service-token"), description="what gRPC callers must show"
    )
    currency: str = Field("USD", pattern=r"^[A-Z]{3}$", description="where a request names none")
    data: Path = Field(Path(".eshop"), description="folder for everything a run keeps on disk")
    topic_prefix: str = Field("", pattern=r"^[a-z0-9.-]*$", description="lets several shops share a broker")
    group_suffix: str = Field("", pattern=r"^[a-z0-9.-]*$", description="lets several shops share a broker")
    java: str = Field("auto", description="Kafka's Java: auto, system, wheel, or a path")
    cache: Path | None = Field(None, description="folder of fetched jars; the OS user's cache if unset")
    web_listen: str | None = Field(None, description="HOST:PORT of HTTP; the kind's own if unset")
    grpc_listen: str | None = Field(None, description="HOST:PORT of gRPC; the kind's own if unset")
    grpc_reflection: bool = True
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    order_deadline_seconds: int = Field(
        60, ge=1, le=86_400, description="a NEW order older than this is asked about until it is final"
    )

    def service_database_url(self, service: str) -> str:
        """Return the address of the service's database for its run-time role."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"postgresql://{service}_app:{service}_app@127.0.0.1:5432/{service}"

    def admin_url(self) -> str | None:
        """Return the administrator's address, or None where databases are taken as they are."""
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


def split_address(address: str) -> tuple[str, int]:
    """Split HOST:PORT; raise ValueError where there is no port."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        raise ValueError(f"{address!r} is not HOST:PORT")
    return host, int(port)
