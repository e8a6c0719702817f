"""The payments worker: ``faust -A eshop.payments worker -l info``. Everything is wired here."""

from functools import partial

from eshop.contracts.proto.payments_v1_pb2_grpc import add_PaymentsServicer_to_server
from eshop.contracts.services import PAYMENTS
from eshop.handlers.payments import settle_orders
from eshop.process.app import ServiceApp
from eshop.rpc.payments import SERVICE_NAME, PaymentsServicer
from eshop.service import ServiceWorker
from eshop.settings import Settings
from eshop.store.unit_of_work import PaymentsUnitOfWork


def create_app(settings: Settings) -> ServiceApp:
    """Return the worker's app. Nothing is connected before it is started."""
    worker = ServiceWorker(PAYMENTS, settings, PaymentsUnitOfWork, settle_orders)
    worker.serve(SERVICE_NAME, partial(add_PaymentsServicer_to_server, PaymentsServicer(worker.requests)))
    return worker.app


app = create_app(Settings())
