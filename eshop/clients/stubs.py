"""The stub of a service of the catalogue, found by the service's name."""

from importlib import import_module
from typing import Any

from grpc import aio


def stub_of(service: str, channel: aio.Channel) -> Any:
    """Return the stub for the calls of this service alone: the only gRPC service of NAME_v1.proto."""
    module = f"eshop.contracts.proto.{service}_v1_pb2"
    (own,) = import_module(module).DESCRIPTOR.services_by_name
    return getattr(import_module(f"{module}_grpc"), f"{own}Stub")(channel)
