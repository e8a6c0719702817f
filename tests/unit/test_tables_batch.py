"""A batch gives what its events give one by one, and costs a reading and a record for each user."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from eshop.contracts.bodies import Body
from eshop.contracts.envelope import Envelope
from eshop.contracts.messages import encode, schema_of
from eshop.contracts.orders_v1 import OrderCancellationRequested, OrderCreated
from eshop.contracts.payments_v1 import AccountToppedUp
from eshop.process.app import ServiceApp
from eshop.settings import Settings
from eshop.tables import batch as batch_module
from eshop.tables.batch import Batch, CannotFold
from eshop.tables.entry import UserEntry, from_bytes
from eshop.tables.users import Users

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NOW = int(NOON.timestamp()) // 60
ID = str(UUID(int=1))


def event_of(body: Body, offset: int = 0, partition: int = 3) -> Any:
    """Return an event as Faust gives it to an agent."""
    schema = schema_of(body)
    envelope = Envelope(ID, schema.type, "test", schema.dataschema, NOON, "c", "c")
    tp = TP("topic", partition)
    message = SimpleNamespace(
        topic=tp.topic,
        partition=partition,
        offset=offset,
        tp=tp,
        key=body.user_id.encode(),
        value=encode(body),
        headers=envelope.to_headers(),
    )
    return SimpleNamespace(message=message)


def created(user_id: str, number: int) -> Any:
    order = {"user_id": user_id, "order_id": ID, "amount_minor": 5, "currency": "USD"}
    return event_of(OrderCreated(**order, version=1, feed_number=number, pay_before=NOON))  # type: ignore[arg-type]


def topped_up(user_id: str, number: int) -> Any:
    wallet = {"user_id": user_id, "balance_minor": 100 * number, "currency": "USD", "version": number}
    return event_of(AccountToppedUp(**wallet, feed_number=number, transfer_id=ID, amount_minor=100))  # type: ignore[arg-type]


def fold_all(events: Sequence[Any], stored: dict[tuple[int, bytes], UserEntry]) -> Batch:
    """Fold a batch and store its result."""
    batch = Batch(lambda *place: stored.get(place), NOW)
    for event in events:
        batch.fold(event)
    stored |= {place: user.entry for place, user in batch.users.items() if user.is_written}
    return batch


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([created, topped_up]), st.integers(1, 9))),
    st.data(),
)
def test_any_batches_of_the_events_give_the_same_entries(
    steps: list[tuple[str, Any, int]], data: st.DataObject
) -> None:
    events = [make(user, number) for user, make, number in steps]
    alone: dict[tuple[int, bytes], UserEntry] = {}
    for event in events:
        fold_all([event], alone)
    together: dict[tuple[int, bytes], UserEntry] = {}
    while events:
        size = data.draw(st.integers(1, len(events)))
        fold_all(events[:size], together)
        events = events[size:]
    assert together == alone


def test_repeated_event_has_its_entry_written_again_and_an_ignored_one_has_not() -> None:
    stored: dict[tuple[int, bytes], UserEntry] = {}
    fold_all([created("ann", 1)], stored)
    again = fold_all([created("ann", 1), event_of(_request("bob"))], stored)
    ann, bob = again.users[3, b"ann"], again.users[3, b"bob"]
    assert (ann.is_written, ann.entry) == (True, ann.old)
    assert (bob.is_written, bob.old) == (False, None)


def _request(user_id: str) -> OrderCancellationRequested:
    return OrderCancellationRequested(user_id=user_id, order_id=ID, reason="user")


def test_event_that_can_not_be_decoded_is_passed_over() -> None:
    bad = created("ann", 2)
    bad.message.value = b"{"
    batch = fold_all([created("ann", 1), bad, created("ann", 2)], {})
    assert batch.users[3, b"ann"].entry.orders_seq == 2


def test_event_that_can_not_be_folded_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(batch_module, "fold", fail)
    with pytest.raises(CannotFold, match=r"partition=3.* offset 0 .*a bug"):
        fold_all([created("ann", 1)], {})


@pytest.fixture
async def users(tmp_path: Path) -> Users:
    (tmp_path / "faust").mkdir()
    return Users(ServiceApp("projections", Settings(data=tmp_path)))


async def test_user_has_one_record_in_its_own_partition_for_a_batch(users: Users) -> None:
    sent: list[tuple[int, bytes, bytes]] = []
    cast("Any", users.table).send_changelog = lambda *record: sent.append(record)
    ann = [created("ann", number) for number in (1, 2, 3)]
    bob = created("bob", 1)
    bob.message.partition = 5
    users.take([ann[0], bob, *ann[1:]])
    assert [(partition, key) for partition, key, _ in sent] == [(3, b"ann"), (5, b"bob")]
    assert from_bytes(sent[0][2]).orders_new == 3
    assert [users.table.read(3, b"ann"), users.table.read(5, b"bob")] == [value for *_, value in sent]
    assert users.table.read(5, b"ann") is None
    users.take([created("ann", 4)])
    assert from_bytes(sent[-1][2]).orders_new == 4
