"""The payments worker: ``faust -A eshop.payments worker -l info``. Everything is wired here."""

from functools import partial

from eshop.contracts.payments_v1 import DeadLetterParked
from eshop.contracts.proto.dead_letters_v1_pb2_grpc import add_DeadLettersServicer_to_server
from eshop.contracts.proto.payments_v1_pb2_grpc import add_PaymentsServicer_to_server
from eshop.contracts.proto.timeline_v1_pb2_grpc import add_TimelinePartsServicer_to_server
from eshop.contracts.topics import ORDERS_EVENTS
from eshop.handlers.payments import settle_orders
from eshop.process.app import ServiceApp
from eshop.rpc import dead_letters, payments, timeline
from eshop.service import create_worker, wire_grpc
from eshop.settings import Settings
from eshop.store.unit_of_work import PaymentsUnitOfWork


def create_app(settings: Settings) -> ServiceApp:
    """Return the worker's app. Nothing is connected before it is started."""
    app, _, requests = create_worker(
        "payments",
        settings,
        PaymentsUnitOfWork,
        reads=ORDERS_EVENTS,
        handler=settle_orders,
        parks_as=DeadLetterParked,
        agent_name="payments.settle_orders",
    )
    servicer = payments.PaymentsServicer(requests)
    letters = dead_letters.DeadLettersServicer(requests, settle_orders)
    part = timeline.TimelinePartsServicer(requests)
    services = {
        payments.SERVICE_NAME: partial(add_PaymentsServicer_to_server, servicer),
        dead_letters.SERVICE_NAME: partial(add_DeadLettersServicer_to_server, letters),
        timeline.SERVICE_NAME: partial(add_TimelinePartsServicer_to_server, part),
    }
    wire_grpc(app, settings, services)
    return app


app = create_app(Settings())
