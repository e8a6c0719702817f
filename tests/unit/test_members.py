"""Who is whom in a consumer group: a member that comes back gets what it had, so it must be the same."""

from typing import Any

import pytest

from eshop.process.app import ServiceApp
from eshop.settings import Settings


def member(**settings: Any) -> str | None:
    """Return the id of a worker as a static member of its group."""
    conf: Any = ServiceApp("payments", Settings(**settings)).conf
    return conf.consumer_group_instance_id  # type: ignore[no-any-return]


def test_worker_without_a_name_is_nobody_in_particular() -> None:
    assert member() is None


def test_worker_is_the_same_after_a_restart() -> None:
    assert member(instance="payments-2") == member(instance="payments-2")


@pytest.mark.parametrize("changed", [{"instance": "payments-3"}, {"web_listen": "127.0.0.1:7000"}])
def test_worker_with_another_name_or_address_is_another_member(changed: dict[str, str]) -> None:
    assert member(**{"instance": "payments-2", **changed}) != member(instance="payments-2")


def test_worker_of_another_version_is_another_member(monkeypatch: pytest.MonkeyPatch) -> None:
    before = member(instance="payments-2")
    monkeypatch.setattr("eshop.process.app.version", lambda _package: "999")
    assert member(instance="payments-2") != before
