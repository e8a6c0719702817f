"""An operator's question after an order's way. Imported by a command when it runs, as ``calls`` is."""

import asyncio

from eshop.cli.calls import ask
from eshop.cli.operators import Target
from eshop.contracts.proto import trails_v1_pb2 as pb
from eshop.contracts.proto.trails_v1_pb2_grpc import TrailsStub
from eshop.rpc.timeline import Ask, Timeline, read_timeline


def read(order_id: str, orders: Target, payments: Target) -> Timeline | None:
    """Return the order's timeline, or None where neither service knows the order."""
    return asyncio.run(read_timeline(order_id, _asking(orders), _asking(payments)))


def _asking(target: Target) -> Ask:
    async def get(request: pb.GetTrailRequest) -> pb.Trail:
        return await ask(target, lambda channel: TrailsStub(channel).GetTrail, request)

    return get
