"""Dead letters over real gRPC on a real Postgres: replayed once, discarded, and all of it recorded."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from eshop.contracts import orders_v1
from eshop.contracts.messages import Message, encode
from eshop.contracts.proto import dead_letters_v1_pb2 as pb
from eshop.contracts.proto.dead_letters_v1_pb2_grpc import (
    DeadLettersStub,
    add_DeadLettersServicer_to_server,
)
from eshop.handlers.orders import place_orders, record_outcomes
from eshop.handlers.parking import BURST_MAX, Poison, park
from eshop.handlers.payments import settle_orders
from eshop.handlers.replay import Handler
from eshop.rpc.dead_letters import SERVICE_NAME, DeadLettersServicer
from eshop.store.faults import cause_of, is_poison
from eshop.store.unit_of_work import OrdersUnitOfWork, PaymentsUnitOfWork, Store
from tests.support.builders import Partition, captured, new_id, order_created, place_order, remove_all_expired
from tests.support.grpc_services import (
    TOKEN,
    Caller,
    code_of,
    holding,
    rows,
    served,
    served_at,
    until_waiting,
)

Orders = Store[OrdersUnitOfWork]
Payments = Store[PaymentsUnitOfWork]


def adding(store: Store[Any], handler: Handler[Any]) -> Callable[[aio.Server], None]:
    servicer = DeadLettersServicer(store, handler)
    return lambda server: add_DeadLettersServicer_to_server(servicer, server)


def letters_of(store: Store[Any], handler: Handler[Any]) -> AbstractAsyncContextManager[Any]:
    """Serve a service's dead letters."""
    return served(SERVICE_NAME, adding(store, handler))


@pytest.fixture
async def ask(orders: Orders) -> AsyncIterator[Any]:
    """Call the orders service's dead letters."""
    async with letters_of(orders, record_outcomes) as channel:
        yield Caller(DeadLettersStub(channel))


@pytest.fixture
async def ask_payments(payments: Payments) -> AsyncIterator[Any]:
    """Call the payments service's dead letters."""
    async with letters_of(payments, settle_orders) as channel:
        yield Caller(DeadLettersStub(channel))


async def park_after_failure(store: Store[Any], handler: Handler[Any], message: Message) -> str:
    """Have the handler fail with the message, park that as a delivery does, and return the letter's id."""
    with pytest.raises(Exception, match=r".") as failed:
        await store.transact(lambda uow: handler(uow, [message]))
    assert is_poison(failed.value), failed.value
    return await park_poison(store, poison_of(message, cause_of(failed.value), str(failed.value)))


def poison_of(message: Message, cause: str, error: str) -> Poison:
    """Return a message as one that can't be handled."""
    headers = tuple(message.envelope.to_headers())
    return Poison(
        message.origin, message.user_id.encode(), encode(message.body), headers, cause, error, message
    )


async def park_poison(store: Store[Any], poison: Poison) -> str:
    """Park a message, and return the letter's id."""
    await store.transact(lambda uow: park(uow, poison, orders_v1.DeadLetterParked))
    (row,) = await sql(store, f"SELECT * FROM dead_letters WHERE message_id = '{poison.message_id}'")
    return str(row.dead_letter_id)


async def sql(store: Store[Any], statement: str) -> list[Any]:
    """Run a statement."""
    return await store.database.run_alone(lambda session: session.run_sql(statement))


def act(dead_letter_id: str, reason: str = "mended") -> pb.ActRequest:
    return pb.ActRequest(dead_letter_id=dead_letter_id, reason=reason, operator="olga")


def unreadable(number: int = 0, value: bytes | None = b"{") -> Poison:
    """Return a message nobody can decode."""
    message = Partition().message(captured("ann", new_id(), 5))
    origin = replace(message.origin, offset=number)
    headers = tuple(message.envelope.to_headers())
    return Poison(origin, b"ann", value, headers, "undecodable", "the body does not fit")


async def test_message_that_came_before_its_order_is_recorded_when_it_is_replayed(
    ask: Any, orders: Orders
) -> None:
    request = place_order("ann")
    message = Partition().message(captured("ann", request.order_id, 5))
    letter_id = await park_after_failure(orders, record_outcomes, message)
    still = await ask.Replay(act(letter_id))
    assert (still.done, still.status, still.cause) == (False, "parked", "broken assertion")
    assert f"order {request.order_id} does not exist" in still.error
    assert await rows(orders, "operator_actions", "inbox") == [0, 1]

    await orders.transact(lambda uow: place_orders(uow, [request], 60))
    done = await ask.Replay(act(letter_id))
    assert (done.done, done.status, done.cause) == (True, "replayed", "")
    (order,) = await sql(orders, "SELECT status, version FROM orders")
    assert (order.status, order.version) == ("FINISHED", 2)
    (action,) = await sql(orders, "SELECT * FROM operator_actions")
    assert (action.action, action.operator, action.reason) == ("replay", "olga", "mended")
    assert (action.dead_letter_id, action.order_id, action.user_id) == (letter_id, request.order_id, "ann")
    assert await rows(orders, "watermarks") == [0]
    again = await ask.Replay(act(letter_id))
    assert (again.done, again.status) == (False, "replayed")
    await orders.transact(lambda uow: record_outcomes(uow, [message]))
    (received,) = await sql(orders, "SELECT redelivered FROM inbox")
    assert received.redelivered == 1
    assert await rows(orders, "order_history", "operator_actions") == [2, 1]


async def test_replay_that_is_asked_for_many_times_at_once_happens_once(ask: Any, orders: Orders) -> None:
    request = place_order("ann")
    message = Partition().message(captured("ann", request.order_id, 5))
    letter_id = await park_after_failure(orders, record_outcomes, message)
    await orders.transact(lambda uow: place_orders(uow, [request], 60))
    async with holding(orders, "SELECT * FROM users FOR UPDATE"):
        asked = [asyncio.ensure_future(ask.Replay(act(letter_id))) for _ in range(3)]
        await until_waiting(orders)
    replies = await asyncio.gather(*asked)
    assert sorted(reply.done for reply in replies) == [False, False, True]
    assert {reply.status for reply in replies} == {"replayed"}
    assert await rows(orders, "order_history", "operator_actions", "inbox") == [2, 1, 1]


async def test_replay_of_what_was_done_otherwise_has_no_second_effect(
    ask_payments: Any, payments: Payments
) -> None:
    await sql(payments, "INSERT INTO wallets (user_id, currency, balance_minor) VALUES ('ann', 'USD', 100)")
    order = order_created("ann", 70)
    message, copy = Partition().message(order), Partition(1).message(order)
    letter_id = await park_poison(payments, poison_of(message, "SQLSTATE 23514", "as it was then"))
    await payments.transact(lambda uow: settle_orders(uow, [copy]))
    assert (await ask_payments.Replay(act(letter_id))).done
    (wallet,) = await sql(payments, "SELECT balance_minor FROM wallets WHERE user_id = 'ann'")
    assert wallet.balance_minor == 30
    assert await rows(payments, "payments", "transfers", "legs") == [1, 1, 2]
    told = await sql(payments, "SELECT body FROM outbox WHERE type = 'eshop.payments.PaymentCaptured'")
    assert len({row.body for row in told}) == 1
    assert len(told) == 2, "the same outcome, published again"


async def test_message_that_the_tables_still_refuse_stays_parked(
    ask_payments: Any, payments: Payments
) -> None:
    await sql(payments, "INSERT INTO wallets (user_id, currency, balance_minor) VALUES ('ann', 'USD', 100)")
    # Somebody else's capture of the same order: as if a key had been taken by mistake.
    order = order_created("ann", 70)
    await sql(
        payments,
        "INSERT INTO transfers (transfer_id, kind, user_id, currency, order_id)"
        f" VALUES ('{new_id()}', 'capture', 'ann', 'USD', '{order.order_id}')",
    )
    letter_id = await park_after_failure(payments, settle_orders, Partition().message(order))
    still = await ask_payments.Replay(act(letter_id))
    assert (still.done, still.cause) == (False, "SQLSTATE 23505")
    assert "transfers_order_id_kind_key" in still.error
    assert await rows(payments, "payments", "inbox", "operator_actions") == [0, 1, 0]


async def test_message_that_can_not_be_read_can_not_be_replayed(ask: Any, orders: Orders) -> None:
    letter_id = await park_poison(orders, unreadable())
    still = await ask.Replay(act(letter_id))
    assert (still.done, still.status, still.cause) == (False, "parked", "undecodable")
    assert "does not fit eshop/payments/v1/PaymentCaptured" in still.error


async def test_discarded_message_is_claimed_for_good(ask: Any, orders: Orders) -> None:
    request = place_order("ann")
    message = Partition().message(captured("ann", request.order_id, 5))
    letter_id = await park_after_failure(orders, record_outcomes, message)
    await orders.transact(lambda uow: place_orders(uow, [request], 60))
    given_up = await ask.Discard(act(letter_id, "a test order"))
    assert (given_up.done, given_up.status) == (True, "discarded")
    for reply in (await ask.Discard(act(letter_id)), await ask.Replay(act(letter_id))):
        assert (reply.done, reply.status) == (False, "discarded")
    await orders.transact(lambda uow: record_outcomes(uow, [message]))
    assert await rows(orders, "order_history", "inbox", "operator_actions") == [1, 1, 1]
    shown = await ask.Show(pb.ShowRequest(dead_letter_id=letter_id))
    (action,) = shown.actions
    assert (action.action, action.operator, action.reason) == ("discard", "olga", "a test order")
    assert shown.dead_letter.HasField("resolved_at")


async def test_letter_is_shown_whole(ask: Any, orders: Orders) -> None:
    poison = replace(unreadable(7, b"\x00\xff"), headers=(("odd", b"\xfe\x00"), ("odd", b"twice")))
    letter_id = await park_poison(orders, poison)
    shown = await ask.Show(pb.ShowRequest(dead_letter_id=letter_id))
    assert (shown.key, shown.value) == (b"ann", b"\x00\xff")
    assert [(header.name, header.value) for header in shown.headers] == [
        ("odd", b"\xfe\x00"),
        ("odd", b"twice"),
    ]
    letter = shown.dead_letter
    assert (letter.topic, letter.partition, letter.offset) == (poison.origin.topic, 0, 7)
    assert (letter.cause, letter.error, letter.status) == ("undecodable", poison.error, "parked")
    assert not letter.HasField("resolved_at")
    null = await ask.Show(pb.ShowRequest(dead_letter_id=await park_poison(orders, unreadable(8, None))))
    assert not null.HasField("value")


async def test_letters_are_counted_by_cause_and_paged_oldest_first(ask: Any, orders: Orders) -> None:
    partition = Partition()
    for _ in range(2):
        await park_after_failure(orders, record_outcomes, partition.message(captured("ann", new_id(), 5)))
    ids = [await park_poison(orders, unreadable(number)) for number in (10, 11, 12)]
    await ask.Discard(act(ids[0]))
    summary = await ask.Summarize(pb.SummarizeRequest())
    assert [(group.cause, group.status, group.count) for group in summary.groups] == [
        ("broken assertion", "parked", 2),
        ("undecodable", "parked", 2),
        ("undecodable", "discarded", 1),
    ]
    for group in summary.groups:
        assert group.first_parked_at.ToNanoseconds() <= group.last_parked_at.ToNanoseconds()
    only = await ask.Summarize(pb.SummarizeRequest(cause="undecodable", status="parked"))
    assert [group.count for group in only.groups] == [2]
    first = await ask.List(pb.ListRequest(cause="undecodable", limit=2))
    assert [letter.dead_letter_id for letter in first.dead_letters] == ids[:2]
    second = await ask.List(pb.ListRequest(cause="undecodable", limit=2, after_id=first.next_id))
    assert ([letter.dead_letter_id for letter in second.dead_letters], second.next_id) == (ids[2:], "")
    parked = await ask.List(pb.ListRequest(status="parked", limit=100))
    assert len(parked.dead_letters) == 4


async def test_partition_that_takes_no_more_is_named_until_somebody_has_looked(
    ask: Any, orders: Orders
) -> None:
    ids = [await park_poison(orders, unreadable(number)) for number in range(BURST_MAX)]
    summary = await ask.Summarize(pb.SummarizeRequest())
    (held,) = summary.held
    assert (held.topic, held.partition, held.parked) == ("eshop.payments.events.v1", 0, BURST_MAX)
    await ask.Discard(act(ids[-1]))
    assert (await ask.Summarize(pb.SummarizeRequest())).held == []


@pytest.mark.parametrize("unknown", ["", "x", "a\x00b", "' OR 1=1 --", new_id()])
async def test_letter_that_is_not_there_is_not_found(ask: Any, unknown: str) -> None:
    for call in (
        ask.Show(pb.ShowRequest(dead_letter_id=unknown)),
        ask.Replay(act(unknown)),
        ask.Discard(act(unknown)),
    ):
        assert await code_of(call) is grpc.StatusCode.NOT_FOUND


async def test_bad_request_is_invalid_and_changes_nothing(ask: Any, orders: Orders) -> None:
    letter_id = await park_poison(orders, unreadable())
    for call in (
        ask.Replay(act(letter_id, reason=" ")),
        ask.Discard(act(letter_id, reason="")),
        ask.Discard(pb.ActRequest(dead_letter_id=letter_id, reason="because")),
        ask.List(pb.ListRequest(status="gone")),
        ask.List(pb.ListRequest(after_id="x")),
        ask.Summarize(pb.SummarizeRequest(cause="a\x00b")),
    ):
        assert await code_of(call) is grpc.StatusCode.INVALID_ARGUMENT
    assert (await ask.Show(pb.ShowRequest(dead_letter_id=letter_id))).dead_letter.status == "parked"


async def test_replay_without_a_database_is_asked_for_again(ask: Any, orders: Orders) -> None:
    request = place_order("ann")
    message = Partition().message(captured("ann", request.order_id, 5))
    letter_id = await park_after_failure(orders, record_outcomes, message)
    await orders.transact(lambda uow: place_orders(uow, [request], 60))
    await orders.database.close()
    assert await code_of(ask.Replay(act(letter_id))) is grpc.StatusCode.UNAVAILABLE
    await orders.database.open()
    assert (await ask.Replay(act(letter_id))).done


async def test_resolved_letters_go_after_a_month_and_parked_ones_never(ask: Any, orders: Orders) -> None:
    ids = [await park_poison(orders, unreadable(number)) for number in range(3)]
    for letter_id in ids[:2]:
        await ask.Discard(act(letter_id))
    await sql(orders, "UPDATE dead_letters SET parked_at = now() - interval '1 year'")
    aged = "UPDATE dead_letters SET resolved_at = now() - interval '31 days' WHERE dead_letter_id ="
    await sql(orders, f"{aged} '{ids[0]}'")
    await remove_all_expired(orders.database)
    left = await sql(orders, "SELECT dead_letter_id::text AS id FROM dead_letters ORDER BY 1")
    assert [row.id for row in left] == ids[1:]
    assert await rows(orders, "operator_actions") == [2]


async def eshop(orders: str, payments: str, data: Path, *words: str) -> tuple[int, str]:
    """Run `eshop deadletters` before these services; return its exit code and all it says."""
    environment = os.environ | {
        "ESHOP_ORDERS_GRPC": orders,
        "ESHOP_PAYMENTS_GRPC": payments,
        "ESHOP_SERVICE_TOKEN": TOKEN,
        "ESHOP_DATA": str(data),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "eshop.cli", "deadletters", *words),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def test_operator_sees_the_letters_of_both_services_and_what_is_held(
    orders: Orders, payments: Payments, tmp_path: Path
) -> None:
    poison = [replace(unreadable(number), error="bad \x1b[31m\nbody") for number in range(BURST_MAX)]
    ids = [await park_poison(orders, one) for one in poison]
    ids.append(await park_poison(payments, replace(unreadable(0, b"\xff"), cause="SQLSTATE 22001")))
    async with (
        served_at(SERVICE_NAME, adding(orders, record_outcomes)) as to_orders,
        served_at(SERVICE_NAME, adding(payments, settle_orders)) as to_payments,
    ):

        async def run(*words: str) -> tuple[int, str]:
            return await eshop(to_orders, to_payments, tmp_path, *words)

        code, said = await run("list")
        assert (code, "held: eshop.payments.events.v1/0 of orders" in said) == (0, True), said
        assert all(letter_id in said for letter_id in ids), said
        assert "\x1b" not in said
        code, said = await run("list", "--limit", "2", "--json")
        told = json.loads(said)
        assert [letter["dead_letter_id"] for letter in told["letters"]] == ids[:2]
        assert [(group["service"], group["count"]) for group in told["groups"]] == [
            ("orders", BURST_MAX),
            ("payments", 1),
        ]
        assert (told["more"], len(told["held"])) == (True, 1)
        code, said = await run("show", ids[-1])
        assert (code, "payments" in said, "base64:/w==" in said) == (0, True, True), said
        assert (await run("show", ids[-1], "--service", "orders"))[0] == 1

        code, said = await run("replay", "--cause", "undecodable", "--reason", "again")
        assert (code, f"0 replayed, {BURST_MAX} not" in said) == (1, True), said
        assert said.count("once the orders service has code that reads it") == BURST_MAX
        code, said = await run("discard", *ids[:2], "--reason", "a test's")
        assert (code, "2 discarded" in said) == (0, True), said
        code, said = await run("list", "--service", "orders", "--json")
        told = json.loads(said)
        assert (told["held"], len(told["letters"])) == ([], BURST_MAX - 2)
        code, said = await run("list", "--status", "discarded", "--cause", "undecodable")
        assert (code, [letter_id in said for letter_id in ids[:3]]) == (0, [True, True, False]), said

        reason = ("--reason", "all of it")
        assert (
            (await run("discard", *reason))[0]
            == (await run("discard", ids[2], "--cause", "x", *reason))[0]
            == 1
        )
        code, said = await run("discard", "--cause", "undecodable", *reason)
        assert (code, f"{BURST_MAX - 2} discarded" in said) == (0, True), said
        code, said = await run("list", "--json")
        assert [letter["dead_letter_id"] for letter in json.loads(said)["letters"]] == ids[-1:]
        code, said = await run("discard", "--cause", "SQLSTATE 22001", "--service", "orders", *reason)
        assert (code, said) == (0, "0 discarded\n")
    code, said = await run("list")
    assert (code, "is the shop up?" in said) == (1, True), said
