"""The common options of operators' commands: operator, reason, and the target service."""

import getpass
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from eshop.cli.console import data_folder
from eshop.cluster.errors import ClusterError
from eshop.cluster.folder import DataFolder
from eshop.cluster.ports import HOST
from eshop.contracts.services import SERVICES
from eshop.settings import Settings

if TYPE_CHECKING:
    ServiceName = str
else:
    ServiceName = Literal[tuple(SERVICES)]

ReasonOption = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Reason; it is recorded.", show_default=False)
]
OperatorOption = Annotated[
    str | None,
    typer.Option("--operator", metavar="NAME", help="Operator; it is recorded. Default: the OS user."),
]
ShopOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Data folder of the running shop."),
]


@dataclass(frozen=True, slots=True)
class Target:
    """A service to call: its workers' addresses, comma-separated, and the service token."""

    service: str
    addresses: str
    token: str


def target(service: str, data: Path | None) -> Target:
    """Return the service of the chosen shop.

    The shop that runs in ``data`` if given; else ESHOP_*_GRPC; else the shop that runs in the default folder,
    on any ports; else the default address.
    """
    settings = Settings()
    addresses = settings.grpc_addresses(service)
    if data is not None or not settings.names_grpc(service):
        folder = data_folder(data)
        found = _running(folder, service)
        if found is None and data is not None:
            raise ClusterError(f"nothing runs in {folder.path}: start it with `eshop up`")
        addresses = found or addresses
    return Target(service, addresses, settings.service_token.get_secret_value())


def operator_name(chosen: str | None) -> str:
    """Return the operator: the given name, else the OS user."""
    if chosen is not None:
        return chosen
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"uid {os.getuid()}"


def _running(folder: DataFolder, service: str) -> str | None:
    """Return the addresses of the service of the shop in the folder, or None if none runs."""
    record = folder.record()
    if record is None or not record.is_alive():
        return None
    ports = [process.ports["grpc"] for process in record.processes if process.kind == service]
    return ",".join(f"{HOST}:{port}" for port in ports) or None
