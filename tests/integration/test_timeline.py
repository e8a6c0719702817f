"""Timelines from two real databases by real gRPC; the test itself carries the messages between them."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc
import psycopg2
import pytest
from grpc import aio

from eshop.clients.timeline import Step, Timeline, read_timeline
from eshop.cluster.embedded import EmbeddedCluster
from eshop.contracts.envelope import Envelope
from eshop.contracts.messages import Message, Origin, decode, encode
from eshop.contracts.orders_v1 import DeadLetterParked
from eshop.contracts.proto import timeline_v1_pb2 as pb
from eshop.contracts.proto.timeline_v1_pb2_grpc import TimelinePartsStub, add_TimelinePartsServicer_to_server
from eshop.handlers.orders import PlaceOrder, place_orders, record_outcomes, request_refund
from eshop.handlers.parking import Poison, park
from eshop.handlers.payments import settle_orders
from eshop.handlers.replay import Act, Handler, replay
from eshop.rpc.timeline import MESSAGES_MAX, SERVICE_NAME, TimelinePartsServicer
from eshop.store.migrate import on_database
from eshop.store.outbox import read_unsent
from eshop.store.unit_of_work import OrdersUnitOfWork, PaymentsUnitOfWork, Store
from tests.support.builders import CAUSE, new_id, place_order
from tests.support.grpc_services import Caller, code_of, served

CREATED = "eshop.orders.OrderCreated"


@dataclass
class World:
    """Both services, and who carries the messages between them."""

    orders: Store[OrdersUnitOfWork]
    payments: Store[PaymentsUnitOfWork]
    ask_orders: Any
    ask_payments: Any
    admin_url: str

    async def place(self, user_id: str = "ann", amount_minor: int = 70) -> PlaceOrder:
        """Place an order of a user who can pay."""
        wallet = "INSERT INTO wallets (user_id, currency, balance_minor) VALUES ('{}', 'USD', 1000)"
        await sql(self.payments, f"{wallet.format(user_id)} ON CONFLICT DO NOTHING")
        request = place_order(user_id, amount_minor)
        await self.orders.transact(lambda uow: place_orders(uow, [request], 60))
        return request

    async def carry(self, store: Store[Any]) -> list[Message]:
        """Publish what is in a service's outbox, and return it as its reader gets it."""
        unsent = await store.database.run_alone(lambda session: read_unsent(session, 100))
        mark = "UPDATE outbox SET sent_at = clock_timestamp(), sent_partition = 3, sent_offset = outbox_id"
        await sql(store, f"{mark} WHERE sent_at IS NULL")
        return [_read(row) for row in unsent]

    async def settle(self) -> list[Message]:
        """Have all messages be handled, to and fro, and return those that payments got."""
        asked: list[Message] = []
        while messages := await self.carry(self.orders):
            asked += messages
            await self.payments.transact(lambda uow, some=messages: settle_orders(uow, some))  # type: ignore[misc]
            told = await self.carry(self.payments)
            await self.orders.transact(lambda uow, some=told: record_outcomes(uow, some))  # type: ignore[misc]
        return asked

    def change(self, service: str, statement: str) -> None:
        """Change what the service itself may not."""
        store: Store[Any] = self.orders if service == "orders" else self.payments
        connection = psycopg2.connect(on_database(self.admin_url, store.database.url))
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(statement)
        finally:
            connection.close()

    async def timeline(self, order_id: str) -> Timeline:
        """Return the order's timeline."""
        found = await self.find(order_id)
        assert found is not None
        return found

    async def find(self, order_id: str) -> Timeline | None:
        """Return the order's timeline, if there is one."""
        asks = {"orders": self.ask_orders.GetTimelinePart, "payments": self.ask_payments.GetTimelinePart}
        return await read_timeline(order_id, asks)


def _read(row: Any) -> Message:
    sent = row.message
    envelope = Envelope(
        row.message_id,
        sent.type,
        sent.source,
        sent.dataschema,
        row.created_at,
        sent.correlation_id,
        sent.causation_id,
    )
    origin = Origin(sent.topic, 3, row.outbox_id)
    return decode(origin, sent.user_id.encode(), sent.body.encode(), envelope.to_headers())


async def sql(store: Store[Any], statement: str) -> list[Any]:
    """Run a statement."""
    return await store.database.run_alone(lambda session: session.run_sql(statement))


def adding(store: Store[Any]) -> Callable[[aio.Server], None]:
    servicer: TimelinePartsServicer[Any] = TimelinePartsServicer(store)
    return lambda server: add_TimelinePartsServicer_to_server(servicer, server)


@pytest.fixture
async def world(
    cluster: EmbeddedCluster, orders: Store[OrdersUnitOfWork], payments: Store[PaymentsUnitOfWork]
) -> AsyncIterator[World]:
    async with (
        served(SERVICE_NAME, adding(orders)) as to_orders,
        served(SERVICE_NAME, adding(payments)) as to_payments,
    ):
        stubs = (Caller(TimelinePartsStub(to_orders)), Caller(TimelinePartsStub(to_payments)))
        yield World(orders, payments, *stubs, cluster.postgres_admin_url)


def whats(timeline: Timeline) -> list[tuple[str, str]]:
    """Return what happened where, in order."""
    return [(step.service, step.what) for step in timeline.steps]


def of(timeline: Timeline, what: str, **wanted: object) -> list[Step]:
    """Return the steps of a kind that have these details."""
    return [step for step in timeline.steps if step.what == what and wanted.items() <= step.details.items()]


async def test_paid_order_passes_all_stations_in_order(world: World) -> None:
    request = await world.place()
    await world.settle()
    timeline = await world.timeline(request.order_id)
    assert whats(timeline) == [
        ("orders", "requested"),
        ("orders", "appended"),
        ("orders", "published"),
        ("payments", "received"),
        ("payments", "decided"),
        ("payments", "posted"),
        ("payments", "posted"),
        ("payments", "appended"),
        ("payments", "published"),
        ("orders", "received"),
        ("orders", "changed"),
        ("orders", "appended"),
        ("orders", "published"),
        ("payments", "received"),
    ]
    requested, created, sent, received, decided, wallet, sales, *_ = timeline.steps
    assert requested.details["amount_minor"] == 70
    assert created.details["type"] == CREATED
    place = {"topic": "eshop.orders.events.v1", "partition": 3, "offset": 1}
    assert place.items() <= sent.details.items()
    assert received.details == sent.details
    assert decided.details["status"] == "CAPTURED"
    assert (wallet.details["amount_minor"], wallet.details["balance_minor"]) == (-70, 930)
    assert (wallet.details["feed_number"], "feed_number" in sales.details) == (1, False)
    (changed,) = of(timeline, "changed")
    assert (changed.details["status"], changed.details["feed_number"]) == ("FINISHED", 2)
    assert (timeline.user_id, timeline.removed, timeline.waiting) == ("ann", [], [])
    told = timeline.as_json(with_internal=False)
    assert told["steps"][0]["after_ms"] == 0
    assert sum(step["after_ms"] for step in told["steps"]) == pytest.approx(
        (timeline.steps[-1].at - timeline.steps[0].at).total_seconds() * 1000, abs=0.1
    )


async def test_redelivered_message_is_shown_as_dropped(world: World) -> None:
    request = await world.place()
    (created, *_) = await world.settle()
    for _ in range(2):
        await world.payments.transact(lambda uow: settle_orders(uow, [created]))
    timeline = await world.timeline(request.order_id)
    (dropped,) = of(timeline, "dropped")
    assert (dropped.service, dropped.details["times"], dropped.details["type"]) == ("payments", 2, CREATED)
    assert timeline.steps[-1] is dropped


async def test_orders_of_the_same_user_and_moment_stay_apart(world: World) -> None:
    await world.place()
    requests = [place_order("ann", 5), place_order("ann", 6)]
    await world.orders.transact(lambda uow: place_orders(uow, requests, 60))
    await world.settle()
    for request in requests:
        timeline = await world.timeline(request.order_id)
        assert len(timeline.steps) == 14
        assert of(timeline, "posted", amount_minor=request.amount_minor) != []


async def test_message_on_its_way_is_waited_for(world: World) -> None:
    request = await world.place()
    timeline = await world.timeline(request.order_id)
    assert whats(timeline) == [("orders", "requested"), ("orders", "appended")]
    (waiting,) = timeline.waiting
    assert (waiting["service"], waiting["type"]) == ("payments", CREATED)


async def test_refund_long_after_is_found_with_who_wanted_it_and_why(world: World) -> None:
    request = await world.place()
    await world.settle()
    # As if all so far had been an hour ago.
    age(world, timedelta(hours=1))
    await world.orders.transact(
        lambda uow: request_refund(uow, request.order_id, reason="broken", operator="olga", cause=CAUSE)
    )
    await world.settle()
    timeline = await world.timeline(request.order_id)
    assert [(step.service, step.details["status"]) for step in of(timeline, "decided")] == [
        ("payments", "CAPTURED"),
        ("payments", "REFUNDED"),
    ]
    assert [step.details["status"] for step in of(timeline, "changed")] == ["FINISHED", "CANCELLED"]
    assert len(of(timeline, "posted", kind="refund")) == 2
    assert len(of(timeline, "appended")) == 6
    (refund,) = of(timeline, "refund")
    assert refund.internal == {"operator": "olga", "reason": "broken"}
    (asked,) = of(timeline, "appended", type="eshop.orders.OrderCancellationRequested")
    assert timeline.steps.index(refund) < timeline.steps.index(asked)
    assert "olga" not in str(timeline.as_json(with_internal=False))
    assert "olga" in str(timeline.as_json(with_internal=True))


async def test_question_that_was_answered_long_after_is_found(world: World) -> None:
    request = await world.place()
    await world.orders.transact(
        lambda uow: request_refund(uow, request.order_id, reason="broken", operator="olga", cause=CAUSE)
    )
    late = await world.carry(world.orders)
    age(world, timedelta(hours=1))
    await sql(world.orders, "UPDATE orders SET repeat_at = now() + interval '30 s'")
    world.change("orders", "UPDATE operator_actions SET at = now()")
    await world.payments.transact(lambda uow: settle_orders(uow, late[1:]))
    told = await world.carry(world.payments)
    await world.orders.transact(lambda uow: record_outcomes(uow, told))
    timeline = await world.timeline(request.order_id)
    assert len(of(timeline, "appended", type="eshop.orders.OrderCancellationRequested")) == 1


async def test_dead_letter_and_its_replay_are_part_of_it(world: World) -> None:
    request = await world.place()
    (created,) = await world.carry(world.orders)
    letter_id = await park_at(world.payments, created)
    parked = await world.timeline(request.order_id)
    (step,) = of(parked, "parked")
    assert step.internal == {"dead_letter_id": letter_id, "cause": "SQLSTATE 23514"}
    act = Act(letter_id, "mended", "olga")
    handler: Handler[Any] = settle_orders
    await world.payments.transact(lambda uow: replay(uow, act, handler))
    await world.settle()
    timeline = await world.timeline(request.order_id)
    kinds = [what for _, what in whats(timeline)]
    assert kinds[3:7] == ["parked", "replay", "received", "decided"]
    assert "23514" not in str(timeline.as_json(with_internal=False))


async def park_at(store: Store[Any], message: Message) -> str:
    """Park a message as one that the tables refuse, and return the letter's id."""
    headers = tuple(message.envelope.to_headers())
    poison = Poison(
        message.origin,
        message.user_id.encode(),
        encode(message.body),
        headers,
        "SQLSTATE 23514",
        "no",
        message,
    )
    await store.transact(lambda uow: park(uow, poison, DeadLetterParked))
    (row,) = await sql(store, "SELECT * FROM dead_letters")
    return str(row.dead_letter_id)


async def test_what_retention_has_taken_is_said(world: World) -> None:
    request = await world.place()
    await world.settle()
    age(world, timedelta(days=9))
    await sql(world.orders, "DELETE FROM outbox")
    await sql(world.payments, "DELETE FROM outbox")
    timeline = await world.timeline(request.order_id)
    kinds = [what for _, what in whats(timeline)]
    assert kinds == ["requested", "received", "decided", "posted", "posted", "changed"]
    assert [(gone["service"], gone["table"]) for gone in timeline.removed] == [
        ("orders", "outbox"),
        ("payments", "outbox"),
    ]
    age(world, timedelta(days=7))
    assert len((await world.timeline(request.order_id)).removed) == 4


async def test_unknown_order_has_no_timeline(world: World) -> None:
    await world.place()
    assert await world.find(new_id()) is None
    for bad in ("", "x", "a\x00b"):
        asked = pb.GetTimelinePartRequest(order_id=bad)
        assert await code_of(world.ask_orders.GetTimelinePart(asked)) is grpc.StatusCode.INVALID_ARGUMENT
    many = pb.GetTimelinePartRequest(order_id=new_id(), message_ids=["x"] * (MESSAGES_MAX + 1))
    assert await code_of(world.ask_orders.GetTimelinePart(many)) is grpc.StatusCode.INVALID_ARGUMENT
    odd = pb.GetTimelinePartRequest(order_id=new_id(), message_ids=["x", "", "a\x00b", new_id()])
    assert (await world.ask_payments.GetTimelinePart(odd)).user_id == ""


#: Where times are, and where ids that begin with one.
TIMES = {
    "orders": (
        ("orders", "created_at"),
        ("order_history", "at"),
        ("operator_actions", "at"),
        ("outbox", "created_at"),
        ("outbox", "sent_at"),
        ("inbox", "received_at"),
    ),
    "payments": (
        ("payments", "decided_at"),
        ("transfers", "created_at"),
        ("outbox", "created_at"),
        ("outbox", "sent_at"),
        ("inbox", "received_at"),
    ),
}
IDS = {
    "orders": (("outbox", "message_id"), ("inbox", "message_id")),
    "payments": (
        ("outbox", "message_id"),
        ("inbox", "message_id"),
        ("transfers", "transfer_id"),
        ("legs", "transfer_id"),
        ("wallet_history", "transfer_id"),
    ),
}


def age(world: World, by: timedelta) -> None:
    """Have all that is there have happened earlier."""
    seconds = by.total_seconds()
    for service, times in TIMES.items():
        changes = [f"{table} SET {column} = {column} - interval '{seconds} s'" for table, column in times]
        changes += [f"{table} SET {column} = {older(column, seconds)}" for table, column in IDS[service]]
        follows = f"outbox SET causation_id = {older('causation_id', seconds)}"
        changes.append(f"{follows} WHERE causation_id ~ '^[0-9a-f]{{8}}-'")
        statements = "; ".join(f"UPDATE {change}" for change in changes)
        # Ids that refer to each other change together.
        world.change(service, f"SET LOCAL session_replication_role = replica; {statements}")


def older(column: str, seconds: float) -> str:
    """Return an id as it would have been made earlier."""
    digits = f"replace({column}::text, '-', '')"
    made = f"('x' || left({digits}, 12))::bit(48)::bigint - {int(seconds * 1000)}"
    return f"(lpad(to_hex({made}), 12, '0') || substr({digits}, 13))::uuid"
