"""When a worker is taken for a member of its group, and when it is given up."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import faust
import pytest

from eshop.process import membership
from eshop.process.membership import LOSSES_MAX, PENDING_LOOKS_MAX, TWIN, Membership
from eshop.web.health import NotReady


class Ended(Exception):
    """The process would have ended."""


class Group:
    """A coordinator as the library has it, and the worker that looks at it."""

    def __init__(self, *, is_named: bool = True) -> None:
        self.coordinator = SimpleNamespace(member_id="a-1", generation=1, _pending_exception=None)
        self.coordinator._coordination_task = asyncio.get_running_loop().create_future()
        thread = SimpleNamespace(_consumer=SimpleNamespace(_coordinator=self.coordinator))
        app: Any = SimpleNamespace(should_stop=False, consumer=SimpleNamespace(_thread=thread))
        self.membership = Membership(cast("faust.App", app), is_named=is_named)

    def look(self, member_id: str = "a-1", times: int = 1) -> None:
        self.coordinator.member_id = member_id
        for _ in range(times):
            self.membership.look()


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Let an end be an exception, and time stand still."""

    def end(reason: str) -> None:
        raise Ended(reason)

    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(membership, "end_process", end)
    monkeypatch.setattr("eshop.process.membership.time.monotonic", lambda: now.seconds)
    return now


async def test_a_member_is_ready_with_or_without_partitions() -> None:
    group = Group()
    await group.membership.check()
    group.look(times=100)


@pytest.mark.parametrize("lost", [{"member_id": ""}, {"generation": -1}, {"_pending_exception": OSError()}])
async def test_who_is_no_member_is_not_ready(lost: dict[str, Any]) -> None:
    group = Group()
    vars(group.coordinator).update(lost)
    with pytest.raises(NotReady):
        await group.membership.check()


async def test_the_end_of_coordination_is_the_end() -> None:
    group = Group()
    group.coordinator._coordination_task.set_exception(AssertionError("another address"))
    with pytest.raises(NotReady):
        await group.membership.check()
    with pytest.raises(Ended, match=f"another address.*{TWIN}"):
        group.look(times=PENDING_LOOKS_MAX)


async def test_an_error_that_somebody_takes_is_none() -> None:
    group = Group()
    for _ in range(3):
        group.coordinator._pending_exception = OSError("once")
        group.look(times=PENDING_LOOKS_MAX - 1)
        group.coordinator._pending_exception = None
        group.look()
    group.coordinator._pending_exception = OSError("for ever")
    with pytest.raises(Ended, match="for ever"):
        group.look(times=PENDING_LOOKS_MAX)


async def test_a_place_that_is_given_away_again_and_again_has_another_taker(clock: SimpleNamespace) -> None:
    group = Group()
    group.look()
    for number in range(10):  # a session that ended while the worker was away is nobody's fault
        clock.seconds += 60
        group.look("")
        group.look(f"b-{number}")
    clock.seconds += 60
    for number in range(LOSSES_MAX - 1):
        group.look(f"c-{number}")
    clock.seconds += 60
    group.look("d-0")
    for number in range(1, LOSSES_MAX - 1):
        group.look(f"d-{number}")
    with pytest.raises(Ended, match=TWIN):
        group.look("e")


async def test_a_nameless_member_may_have_any_id() -> None:
    group = Group(is_named=False)
    for number in range(10):
        group.look(f"a-{number}")
