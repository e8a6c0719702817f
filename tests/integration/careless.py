"""A payments worker with a mistake in it: ``faust -A tests.integration.careless worker``.

``CARELESS`` says which. ``seek``: its seek at an assignment never ends. The others are made once, at the
message of the user ``careless``.
"""

import asyncio
import os
import signal
from collections.abc import Sequence
from typing import Any, NoReturn

from eshop.agents import consumer
from eshop.agents.delivery import Delivery
from eshop.payments import app
from eshop.process import consumer as reading

#: Longer than Faust waits between two commits.
COMMIT_SECONDS = 2.0

__all__ = ["app"]


class Mistake(Exception):
    """It leaves the agent's loop, and Faust goes on behind the messages that were in hand."""


async def let_an_exception_out(_delivery: Any, _events: Sequence[Any]) -> None:
    raise Mistake


async def acknowledge_before_handling(_delivery: Any, events: Sequence[Any]) -> None:
    events[-1].ack()
    await asyncio.sleep(COMMIT_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


async def seek_for_ever(_consumer: Any) -> None:
    await asyncio.Event().wait()


if os.environ["CARELESS"] == "seek":
    reading.SEEK_SECONDS_MAX = 1.0
    reading.SeekingConsumer.put_at_committed = seek_for_ever  # type: ignore[method-assign, assignment]

MISTAKES = {"exception": let_an_exception_out, "ack": acknowledge_before_handling}
_mistakes = [MISTAKES[name] for name in MISTAKES if name == os.environ["CARELESS"]]
_deliver = Delivery.deliver


async def _deliver_or_not(delivery: Any, events: Sequence[Any]) -> None:
    if _mistakes and any(event.message.key == b"careless" for event in events):
        await _mistakes.pop()(delivery, events)
    else:
        await _deliver(delivery, events)


def _raise(_reason: str) -> NoReturn:
    raise Mistake


Delivery.deliver = _deliver_or_not  # type: ignore[method-assign, assignment]
vars(consumer)["end_process"] = _raise
