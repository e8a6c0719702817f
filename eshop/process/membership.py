"""Static membership: readiness of a worker's membership, and the end of a worker that lost it for good.

Faust does not notice if the coordination task of aiokafka ends (Faust never reads its errors): such a worker
has no partitions without an end, and is ready. The uses of aiokafka's private names are here.
"""

import asyncio
import time
from collections import deque
from typing import Any

import faust

from eshop.process.exit import end_process
from eshop.web.health import NotReady

LOOK_SECONDS = 0.5
#: A later call of Faust may take an error from the task, and the task then goes on.
PENDING_LOOKS_MAX = 3
#: A member loses its id after an absence longer than a session. A member that loses it often without an
#: absence has a twin: the two evict each other with every heartbeat.
LOSSES_MAX = 3
LOSSES_SECONDS = 30.0
TWIN = "another process may be a member under the same name: see ESHOP_INSTANCE"


class Membership:
    """Watches the consumer's coordinator. ``is_named`` says that another process may have the same id."""

    def __init__(self, app: faust.App, *, is_named: bool) -> None:
        self._app = app
        self._is_named = is_named
        self._hint = f"; {TWIN}" if is_named else ""
        self._member_id = ""
        self._pending: deque[BaseException | None] = deque(maxlen=PENDING_LOOKS_MAX)
        self._lost_at: deque[float] = deque(maxlen=LOSSES_MAX)

    def look(self) -> None:
        """Look once; end the process if it can't be a member any more."""
        coordinator = self._coordinator()
        if coordinator is None or self._app.should_stop:
            return
        self._pending.append(_error(coordinator))
        if (error := self._pending[-1]) is not None and list(self._pending) == [error] * PENDING_LOOKS_MAX:
            end_process(f"the consumer group can't be joined: {error!r}{self._hint}")
        if self._is_named and self._has_twin(str(coordinator.member_id)):
            end_process(f"the consumer group gave this worker's place away {LOSSES_MAX} times{self._hint}")

    async def check(self) -> None:
        """Raise NotReady unless the worker is a member: with partitions, or as a spare without any."""
        coordinator = self._coordinator()
        if coordinator is None or not coordinator.member_id or coordinator.generation < 0:
            raise NotReady("not a member of the consumer group")
        if _error(coordinator) is not None:
            raise NotReady("the consumer group can't be joined")

    def _has_twin(self, member_id: str) -> bool:
        if member_id and self._member_id not in ("", member_id):
            self._lost_at.append(time.monotonic())
        self._member_id = member_id or self._member_id
        return len(self._lost_at) == LOSSES_MAX and time.monotonic() - self._lost_at[0] < LOSSES_SECONDS

    def _coordinator(self) -> Any:
        consumer = getattr(getattr(self._app.consumer, "_thread", None), "_consumer", None)
        return getattr(consumer, "_coordinator", None)


def _error(coordinator: Any) -> BaseException | None:
    """Return the error that ended the coordination, or the error that a caller would have to read."""
    task: asyncio.Task[None] = coordinator._coordination_task  # noqa: SLF001
    pending: BaseException | None = coordinator._pending_exception  # noqa: SLF001
    return task.exception() if task.done() and not task.cancelled() else pending
