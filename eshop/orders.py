"""The orders worker: ``faust -A eshop.orders worker -l info``. Everything is wired here."""

from functools import partial

from eshop.contracts.proto.orders_v1_pb2_grpc import add_OrdersServicer_to_server
from eshop.contracts.services import ORDERS
from eshop.handlers.orders import record_outcomes, repeat_cancellation_requests
from eshop.process.app import ServiceApp
from eshop.process.periodic import register_periodic
from eshop.rpc.orders import SERVICE_NAME, OrdersServicer
from eshop.service import ServiceWorker
from eshop.settings import Settings
from eshop.store.unit_of_work import OrdersUnitOfWork

#: How often overdue orders are looked for, and the number of cancellations that are requested then. It is a
#: safety net: payments must have far more orders than requests to handle, or it would never catch up after an
#: outage.
DEADLINE_SWEEP_SECONDS = 1.0
OVERDUE_MAX = 50


def create_app(settings: Settings) -> ServiceApp:
    """Return the worker's app. Nothing is connected before it is started."""
    worker = ServiceWorker(ORDERS, settings, OrdersUnitOfWork, record_outcomes)

    async def repeat() -> int:
        return await worker.store.transact(lambda uow: repeat_cancellation_requests(uow, OVERDUE_MAX))

    register_periodic(worker.app, DEADLINE_SWEEP_SECONDS, repeat, "the deadline task")
    servicer = OrdersServicer(worker.requests, settings.order_deadline_seconds)
    worker.serve(SERVICE_NAME, partial(add_OrdersServicer_to_server, servicer))
    return worker.app


app = create_app(Settings())
