"""The catalogue of services: the only list of them. Settings, commands, workers and tests iterate over it.

A service owns a database, publishes events and reads events of others. To add a service: docs/development.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from eshop.contracts.topics import (
    ORDERS_DEAD_LETTERS,
    ORDERS_EVENTS,
    PAYMENTS_DEAD_LETTERS,
    PAYMENTS_EVENTS,
    Topic,
)


@dataclass(frozen=True, slots=True)
class Service:
    """A service's interface to the others, with the ports of its workers on a development machine.

    ``stream`` is the name of the service's stream in the users' feeds. ``reads`` are the topics of other
    services that its workers consume. Rows of ``insert_only`` tables are never changed: the service's role in
    Postgres has no right to.
    """

    name: str
    purpose: str
    http_port: int
    grpc_port: int
    stream: str
    events: Topic
    dead_letters: Topic
    reads: tuple[Topic, ...]
    insert_only: tuple[str, ...]


ORDERS = Service(
    "orders",
    "Takes orders, keeps their status and history, and requests the cancellation of overdue orders.",
    http_port=6066,
    grpc_port=50051,
    stream="orders",
    events=ORDERS_EVENTS,
    dead_letters=ORDERS_DEAD_LETTERS,
    reads=(PAYMENTS_EVENTS,),
    insert_only=("order_history", "operator_actions"),
)
PAYMENTS = Service(
    "payments",
    "Keeps accounts and the ledger, decides the payment of each order, and refunds.",
    http_port=6067,
    grpc_port=50052,
    stream="wallet",
    events=PAYMENTS_EVENTS,
    dead_letters=PAYMENTS_DEAD_LETTERS,
    reads=(ORDERS_EVENTS,),
    insert_only=("transfers", "legs", "wallet_history", "operator_actions"),
)
SERVICES: Mapping[str, Service] = MappingProxyType({service.name: service for service in (ORDERS, PAYMENTS)})
EVENT_TOPICS = tuple(service.events for service in SERVICES.values())
TOPICS = (*EVENT_TOPICS, *(service.dead_letters for service in SERVICES.values()))

#: The services that `eshop audit` judges. It has code of its own for the tables and messages of each.
AUDITED = (ORDERS, PAYMENTS)

#: The projections workers: no database, no gRPC, no events of their own.
PROJECTIONS = "projections"
PROJECTED = (ORDERS_EVENTS, PAYMENTS_EVENTS)
GATEWAY = "gateway"
#: HTTP ports of the processes that are no services.
OTHER_HTTP_PORTS: Mapping[str, int] = MappingProxyType({PROJECTIONS: 6068, GATEWAY: 8000})
