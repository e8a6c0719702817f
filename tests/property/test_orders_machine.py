"""For every cut into batches and every redelivery: orders go as one by one, on a real Postgres."""

import asyncio
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eshop.cluster.embedded import EmbeddedCluster
from eshop.contracts import payments_v1
from eshop.contracts.bodies import Body
from eshop.contracts.messages import Message
from eshop.domain.order import PaymentOutcome
from eshop.domain.refusal import Refusal
from eshop.handlers.orders import Placed, PlaceOrder, place_orders, record_outcomes
from eshop.store.database import Database, Session
from eshop.store.migrate import migrate, on_database
from eshop.store.unit_of_work import OrdersUnitOfWork, Store
from tests.support.builders import Partition, captured, new_database_url, new_id, place_order

DEADLINE_SECONDS = 60
T = TypeVar("T")

REFUSED, CAPTURED, REFUNDED = PaymentOutcome.REFUSED, PaymentOutcome.CAPTURED, PaymentOutcome.REFUNDED
#: What payments may come to say about one order: told twice, told late, told in part.
LIVES = (
    (),
    (REFUSED,),
    (REFUSED, REFUSED),
    (CAPTURED,),
    (CAPTURED, REFUNDED),
    (CAPTURED, CAPTURED, REFUNDED, REFUNDED),
    (REFUNDED,),
    (REFUNDED, CAPTURED),
)


def requests() -> st.SearchStrategy[PlaceOrder]:
    """Return a strategy for orders of two users under few keys, some of them for something else."""
    return st.builds(
        lambda user, key, fingerprint: place_order(user, 5, key, fingerprint),
        st.sampled_from(("ann", "bob")),
        st.none() | st.sampled_from(("k1", "k2")),
        st.sampled_from((b"same", b"same", b"other")),
    )


def answers_by_the_rule(asked: Sequence[PlaceOrder]) -> list[tuple[str, bool] | str]:
    """Return what each caller must be told: the first with a key makes the order, later ones are that one."""
    first: dict[tuple[str, str], PlaceOrder] = {}
    answers: list[tuple[str, bool] | str] = []
    for request in asked:
        made = request if request.key is None else first.setdefault(request.key, request)
        if made.fingerprint != request.fingerprint:
            answers.append("idempotency-key-reused")
        else:
            answers.append((made.order_id, made is not request))
    return answers


def outcome(request: PlaceOrder, decided: PaymentOutcome) -> Body:
    """Return payments' message about an order."""
    if decided is REFUSED:
        return payments_v1.PaymentRefused(
            user_id=request.user_id, order_id=request.order_id, reason="insufficient_funds"
        )
    paid = captured(request.user_id, request.order_id, request.amount_minor)
    if decided is CAPTURED:
        return paid
    return payments_v1.PaymentRefunded(**paid.model_dump(), reason="user")


def cut(data: st.DataObject, whole: Sequence[T]) -> list[Sequence[T]]:
    """Draw a split into batches."""
    cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)), max_size=5)) | {0, len(whole)})
    return [whole[start:end] for start, end in itertools.pairwise(cuts)]


def told(data: st.DataObject, made: Iterable[PlaceOrder]) -> list[Message]:
    """Draw what payments says about the orders, those of different orders in any order."""
    lives = {request.order_id: (request, iter(data.draw(st.sampled_from(LIVES)))) for request in made}
    listed = [(request, list(life)) for request, life in lives.values()]
    turns = [number for number, (_, life) in enumerate(listed) for _ in life]
    partition = Partition()
    return [
        partition.message(outcome(listed[number][0], listed[number][1].pop(0)))
        for number in data.draw(st.permutations(turns))
    ]


@dataclass(frozen=True)
class Run:
    """What reaches orders, in its batches."""

    placed: Sequence[Sequence[PlaceOrder]]
    told: Sequence[Sequence[Message]]
    asked_again: Sequence[PlaceOrder]


@pytest.fixture(scope="module")
def database_url(cluster: EmbeddedCluster) -> str:
    """An orders database that the test empties by itself."""
    url = new_database_url(cluster.postgres_admin_url, "orders")
    migrate("orders", url, cluster.postgres_admin_url)
    return url


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(asked=st.lists(requests(), min_size=1, max_size=12), data=st.data())
def test_any_batches_and_any_redelivery_place_and_move_as_one_by_one(
    cluster: EmbeddedCluster, database_url: str, asked: list[PlaceOrder], data: st.DataObject
) -> None:
    answers = answers_by_the_rule(asked)
    made = [
        request for request, answer in zip(asked, answers, strict=True) if answer == (request.order_id, False)
    ]
    messages = told(data, made)
    # A redelivery goes back to where the group had committed, and goes on from there.
    again = messages[data.draw(st.integers(0, len(messages))) :]
    retried = [replace(request, order_id=new_id()) for request in asked if request.key is not None]
    admin_url = on_database(cluster.postgres_admin_url, database_url)
    one_by_one = Run([[request] for request in asked], [[message] for message in messages], retried)
    expected = asyncio.run(end_of(database_url, admin_url, one_by_one))
    in_batches = Run(cut(data, asked), [*cut(data, messages), again], retried)
    assert asyncio.run(end_of(database_url, admin_url, in_batches)) == expected
    assert expected.answers[: len(asked)] == answers
    assert expected.answers[len(asked) :] == answers_by_the_rule([*asked, *retried])[len(asked) :]
    assert expected.has_no_gap


#: What must be the same in the end, whichever way led there.
ENDS = (
    "SELECT order_id, user_id, feed_number, status, reason, version FROM orders ORDER BY 1",
    "SELECT user_id, feed_number FROM users ORDER BY 1",
    "SELECT user_id, feed_number, order_id, version, status, reason FROM order_history ORDER BY 1, 2",
    "SELECT type, body::jsonb - 'pay_before' FROM outbox ORDER BY user_id, outbox_id",
    "SELECT message_id FROM inbox ORDER BY 1",
    "SELECT partition, next_offset FROM watermarks",
)
#: Feed numbers per user and versions per order that are not 1, 2, 3 ..., each once.
GAPS = """
    SELECT user_id FROM order_history GROUP BY 1 HAVING max(feed_number) <> count(*)
    UNION ALL SELECT user_id FROM users u
        WHERE feed_number <> (SELECT count(*) FROM order_history h WHERE h.user_id = u.user_id)
    UNION ALL SELECT order_id::text FROM order_history GROUP BY 1 HAVING max(version) <> count(*)
"""


@dataclass(frozen=True)
class Ended:
    """Where a run ended: what callers were told, and what is stored."""

    answers: list[tuple[str, bool] | str]
    rows: list[list[object]]
    has_no_gap: bool


async def end_of(url: str, admin_url: str, run: Run) -> Ended:
    """Empty the database, let the run reach orders, and return where that ends."""
    empty(admin_url)
    database = Database(url, "eshop-test")
    await database.open()
    store = Store(database, OrdersUnitOfWork)
    place = partial(place_orders, deadline_seconds=DEADLINE_SECONDS)
    try:
        answers = []
        for batch in run.placed:
            answers += await store.transact(partial(place, requests=batch))
        for messages in run.told:
            await store.transact(partial(record_outcomes, messages=messages))
        answers += await store.transact(partial(place, requests=run.asked_again))
        rows = [await database.transact(partial(Session.run_sql, text=query)) for query in (*ENDS, GAPS)]
    finally:
        await database.close()
    return Ended([as_told(answer) for answer in answers], rows[:-1], rows[-1] == [])


def as_told(answer: Placed | Refusal) -> tuple[str, bool] | str:
    """Return what a caller can tell of an answer, without its times."""
    if isinstance(answer, Refusal):
        return answer.code
    return answer.order.order.order_id, answer.replayed


def empty(admin_url: str) -> None:
    """Remove all rows."""
    connection = psycopg2.connect(admin_url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("TRUNCATE users, inbox, outbox, watermarks CASCADE")
    finally:
        connection.close()
