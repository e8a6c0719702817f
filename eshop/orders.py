"""The orders worker: ``faust -A eshop.orders worker -l info``. Everything is wired here."""

from functools import partial

from eshop.contracts.orders_v1 import DeadLetterParked
from eshop.contracts.proto.dead_letters_v1_pb2_grpc import add_DeadLettersServicer_to_server
from eshop.contracts.proto.orders_v1_pb2_grpc import add_OrdersServicer_to_server
from eshop.contracts.proto.timeline_v1_pb2_grpc import add_TimelinePartsServicer_to_server
from eshop.contracts.topics import PAYMENTS_EVENTS
from eshop.handlers.orders import record_outcomes, repeat_cancellation_requests
from eshop.process.app import ServiceApp
from eshop.process.periodic import register_periodic
from eshop.rpc import dead_letters, orders, timeline
from eshop.service import create_worker, wire_grpc
from eshop.settings import Settings
from eshop.store.unit_of_work import OrdersUnitOfWork

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
        return await store.transact(lambda uow: repeat_cancellation_requests(uow, OVERDUE_MAX))

    register_periodic(app, DEADLINE_SWEEP_SECONDS, ask, "the deadline task")
    servicer = orders.OrdersServicer(requests, settings.order_deadline_seconds)
    letters = dead_letters.DeadLettersServicer(requests, record_outcomes)
    part = timeline.TimelinePartsServicer(requests)
    services = {
        orders.SERVICE_NAME: partial(add_OrdersServicer_to_server, servicer),
        dead_letters.SERVICE_NAME: partial(add_DeadLettersServicer_to_server, letters),
        timeline.SERVICE_NAME: partial(add_TimelinePartsServicer_to_server, part),
    }
    wire_grpc(app, settings, services)
    return app


app = create_app(Settings())
