"""An operator's read of a timeline. A command imports this module when it runs."""

import asyncio
from collections.abc import Iterable

from eshop.cli.client.call import ask
from eshop.cli.operators import Target
from eshop.clients.timeline import Ask, Timeline, read_timeline
from eshop.contracts.proto import timeline_v1_pb2 as pb
from eshop.contracts.proto.timeline_v1_pb2_grpc import TimelinePartsStub


def read(order_id: str, services: Iterable[Target]) -> Timeline | None:
    """Return the order's timeline, or None if no service knows the order."""
    return asyncio.run(read_timeline(order_id, {target.service: _asking(target) for target in services}))


def _asking(target: Target) -> Ask:
    async def get(request: pb.GetTimelinePartRequest) -> pb.TimelinePart:
        return await ask(target, lambda channel: TimelinePartsStub(channel).GetTimelinePart, request)

    return get
