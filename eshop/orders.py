"""The orders worker: ``faust -A eshop.orders worker -l info``. Everything is wired here."""

from functools import partial

from eshop.agents.periodic import register_periodic
from eshop.contracts.orders_v1 import DeadLetterParked
from eshop.contracts.proto.dead_letters_v1_pb2_grpc import add_DeadLettersServicer_to_server
from eshop.contracts.proto.orders_v1_pb2_grpc import add_OrdersServicer_to_server
from eshop.contracts.proto.trails_v1_pb2_grpc import add_TrailsServicer_to_server
from eshop.contracts.topics import PAYMENTS_EVENTS
from eshop.handlers.orders import ask_about_overdue, record_outcomes
from eshop.rpc import dead_letters, orders, trails
from eshop.settings import Settings
from eshop.store.units import OrdersUnitOfWork
from eshop.web.app import ServiceApp
from eshop.worker import create_worker, wire_grpc

#: How often overdue orders are looked for, and how many are asked about then. A safety net: what payments has
#: before it anyhow must stay by far the most, or it would never catch up after an outage.
DEADLINE_SWEEP_SECONDS = 1.0
OVERDUE_MAX = 50


def create_app(settings: Settings) -> ServiceApp:
    """Return the worker's app. Nothing is connected before it is started."""
    app, store, requests = create_worker(
        "orders",
        settings,
        OrdersUnitOfWork,
        reads=PAYMENTS_EVENTS,
        handler=record_outcomes,
        parks_as=DeadLetterParked,
        agent_name="orders.record_outcomes",
    )

    async def ask() -> int:
        return await store.transact(lambda uow: ask_about_overdue(uow, OVERDUE_MAX))

    register_periodic(app, DEADLINE_SWEEP_SECONDS, ask, "the deadline task")
    servicer = orders.OrdersServicer(requests, settings.order_deadline_seconds)
    letters = dead_letters.DeadLettersServicer(requests, record_outcomes)
    trail = trails.TrailsServicer(requests)
    services = {
        orders.SERVICE_NAME: partial(add_OrdersServicer_to_server, servicer),
        dead_letters.SERVICE_NAME: partial(add_DeadLettersServicer_to_server, letters),
        trails.SERVICE_NAME: partial(add_TrailsServicer_to_server, trail),
    }
    wire_grpc(app, settings, services)
    return app


app = create_app(Settings())
