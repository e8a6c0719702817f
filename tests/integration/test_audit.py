"""The audit is green on a clean shop, and red on each damage that it claims to see, and for that alone."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from eshop.audit.findings import INVARIANTS, NotJudged, Report
from eshop.cluster.embedded import EmbeddedCluster
from eshop.contracts.topics import ORDERS_EVENTS
from tests.integration.audit_world import World, make_world, oldest_snapshot, slow_down

Command = Callable[..., tuple[int, str]]
NOBODYS = "01a20499-b516-70c7-84d1-48eb107a5d12"


@pytest.fixture(scope="module")
def world(cluster: EmbeddedCluster) -> World:
    """A shop that every test leaves as it was."""
    return make_world(cluster.postgres_admin_url, cluster.kafka)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing moves here: what looks wrong need not be waited for."""
    monkeypatch.setattr("eshop.audit.audit.LOOK_AGAIN_SECONDS", 0.01)
    monkeypatch.setattr("eshop.audit.liveness.LAG_SECONDS", 0.1)
    monkeypatch.setattr("eshop.audit.liveness.LOOK_SECONDS", 0.1)


def broken(report: Report) -> set[str]:
    """Return the invariants that do not hold."""
    return {invariant.id for invariant in INVARIANTS if report.findings.broken[invariant.id]}


def named(report: Report) -> set[str]:
    """Return what the findings are about."""
    return {
        text
        for examples in report.findings.examples.values()
        for found in examples
        for text in found.about.values()
    }


def test_clean_shop_is_green_and_everything_was_looked_at(world: World) -> None:
    report = world.audit()
    assert (report.ok, broken(report)) == (True, set())
    checked, unjudged = report.findings.checked, report.findings.unjudged
    assert (checked["orders"], checked["payments"], checked["wallets"]) == (5, 5, 3)
    assert checked["repetitions"] == 2
    assert checked["inbox_rows"] == checked["messages"] - checked["repetitions"] > 20
    assert not sum(unjudged.values())


@dataclass(frozen=True)
class Damage:
    """What is done to one database, which invariants that breaks, and whom the audit must name.

    In the SQL, ``%(paid)s`` and the like are the ids of orders and messages.
    """

    what: str
    service: str
    breaks: set[str]
    names: str
    sql: str


CAPTURE = "(SELECT transfer_id FROM transfers WHERE kind = 'capture' AND order_id = %(paid)s)"
NEXT = "(SELECT max(feed_number) + 1 FROM order_history WHERE user_id = 'bob')"
#: A dead letter that was the message of the paid order, and is given up.
DISCARDED = """
INSERT INTO dead_letters
    (consumer, message_id, topic, partition, "offset", headers, cause, error, status, resolved_at)
SELECT consumer, message_id, topic, partition, "offset", '[]', 'undecodable', 'no JSON', 'discarded', now()
FROM inbox WHERE message_id = %(message in orders)s
"""
COPIED = "topic, user_id, type, source, dataschema, body, correlation_id, causation_id"
DAMAGES = (
    Damage(
        "a leg is gone",
        "payments",
        {"1", "2"},
        "paid",
        f"DELETE FROM legs WHERE account = 'sales' AND transfer_id = {CAPTURE}",
    ),
    Damage(
        "a debit is doubled",
        "payments",
        {"1", "3"},
        "paid",
        f"""INSERT INTO legs SELECT transfer_id, leg + 2, account, user_id, amount_minor
            FROM legs WHERE transfer_id = {CAPTURE}""",
    ),
    Damage(
        "a debit is another user's",
        "payments",
        {"1"},
        "bob",
        f"UPDATE legs SET user_id = 'bob' WHERE account = 'wallet' AND transfer_id = {CAPTURE}",
    ),
    Damage(
        "a balance is edited",
        "payments",
        {"1"},
        "ann",
        "UPDATE wallets SET balance_minor = balance_minor + 1 WHERE user_id = 'ann'",
    ),
    Damage(
        "a balance of the statement is edited",
        "payments",
        {"1"},
        "ann",
        "UPDATE wallet_history SET balance_minor = balance_minor + 1"
        " WHERE user_id = 'ann' AND feed_number = 2",
    ),
    Damage("a wallet is gone", "payments", {"1"}, "bob", "DELETE FROM wallets WHERE user_id = 'bob'"),
    Damage(
        "a transfer has no legs",
        "payments",
        {"1", "3"},
        "paid",
        f"DELETE FROM legs WHERE transfer_id = {CAPTURE}",
    ),
    Damage(
        "a capture is told as refunded",
        "payments",
        {"3"},
        "paid",
        "UPDATE payments SET status = 'REFUNDED', reason = 'user' WHERE order_id = %(paid)s",
    ),
    Damage(
        "a refund is told as captured",
        "payments",
        {"3", "7"},
        "refunded",
        "UPDATE payments SET status = 'CAPTURED', reason = NULL WHERE order_id = %(refunded)s",
    ),
    Damage(
        "a payment is of another amount",
        "payments",
        {"3"},
        "paid",
        "UPDATE payments SET amount_minor = amount_minor + 1 WHERE order_id = %(paid)s",
    ),
    Damage(
        "a payment is of another currency",
        "payments",
        {"3"},
        "paid",
        "UPDATE payments SET currency = 'EUR' WHERE order_id = %(paid)s",
    ),
    Damage(
        "a payment is another user's",
        "payments",
        {"3"},
        "paid",
        "UPDATE payments SET user_id = 'bob' WHERE order_id = %(paid)s",
    ),
    Damage(
        "a refusal is gone",
        "payments",
        {"3", "7"},
        "refused",
        "DELETE FROM payments WHERE order_id = %(refused)s",
    ),
    Damage(
        "a payment is gone and its money was moved",
        "payments",
        {"3", "7"},
        "paid",
        "DELETE FROM payments WHERE order_id = %(paid)s",
    ),
    Damage(
        "an order's amount is edited",
        "orders",
        {"3"},
        "paid",
        "UPDATE orders SET amount_minor = 1 WHERE order_id = %(paid)s",
    ),
    Damage(
        "an order nobody knows is refused",
        "payments",
        {"4"},
        NOBODYS,
        f"""INSERT INTO payments (order_id, user_id, status, reason)
            VALUES ('{NOBODYS}', 'bob', 'REFUSED', 'user')""",
    ),
    Damage(
        "an order is gone",
        "orders",
        {"4", "7", "9"},
        "refused",
        """DELETE FROM order_history WHERE order_id = %(refused)s;
           DELETE FROM orders WHERE order_id = %(refused)s""",
    ),
    Damage(
        "a sent row of the outbox is gone",
        "orders",
        {"6", "11"},
        "message in orders",
        "DELETE FROM outbox WHERE message_id = %(message in orders)s",
    ),
    Damage(
        "a sent row of the other outbox is gone",
        "payments",
        {"6", "11", "13"},
        "message in payments",
        "DELETE FROM outbox WHERE message_id = %(message in payments)s",
    ),
    Damage(
        "a sent row has another content",
        "orders",
        {"6"},
        "paid",
        "UPDATE outbox SET body = replace(body, '100', '101') WHERE message_id = %(message in orders)s",
    ),
    Damage(
        "a sent row has another type",
        "payments",
        {"6", "13"},
        "paid",
        "UPDATE outbox SET type = 'eshop.payments.Other' WHERE message_id = %(message in payments)s",
    ),
    Damage(
        "a message is missing past the end of a log",
        "orders",
        {"6"},
        NOBODYS,
        f"""INSERT INTO outbox (message_id, sent_at, sent_partition, sent_offset, {COPIED})
            SELECT '{NOBODYS}', now(), 11, 1000000, {COPIED} FROM outbox
            WHERE type = 'eshop.orders.OrderCancellationRequested' LIMIT 1""",
    ),
    Damage(
        "a message is missing in a log",
        "payments",
        {"6"},
        NOBODYS,
        f"""INSERT INTO outbox (message_id, sent_at, sent_partition, sent_offset, {COPIED})
            SELECT '{NOBODYS}', sent_at, sent_partition, 0, {COPIED}
            FROM outbox WHERE message_id = %(message in payments)s;
            UPDATE outbox SET body = (body::jsonb - 'feed_number')::text, causation_id = 'nobody'
            WHERE message_id = '{NOBODYS}'""",
    ),
    Damage(
        "a message was read and not claimed",
        "payments",
        {"7", "12"},
        "message in orders",
        "DELETE FROM inbox WHERE message_id = %(message in orders)s",
    ),
    Damage(
        "a claimed message had no effect",
        "orders",
        {"7"},
        "last",
        """UPDATE orders SET status = 'NEW', version = 1 WHERE order_id = %(last)s;
           DELETE FROM order_history WHERE order_id = %(last)s AND version = 2;
           UPDATE users SET feed_number = feed_number - 1 WHERE user_id = 'dee'""",
    ),
    Damage(
        "a step of a history is edited",
        "orders",
        {"8"},
        "refunded",
        "UPDATE order_history SET status = 'NEW' WHERE order_id = %(refunded)s AND version = 2",
    ),
    Damage(
        "a version is passed over",
        "orders",
        {"8"},
        "paid",
        """UPDATE order_history SET version = 3 WHERE order_id = %(paid)s AND version = 2;
           UPDATE orders SET version = 3 WHERE order_id = %(paid)s""",
    ),
    Damage(
        "an order is not what its history ends in",
        "orders",
        {"8"},
        "refunded",
        "UPDATE orders SET reason = 'timeout' WHERE order_id = %(refunded)s",
    ),
    Damage(
        "a final order has changed",
        "orders",
        {"3", "7", "8", "11"},
        "refused",
        f"""INSERT INTO order_history (user_id, feed_number, order_id, version, status)
            VALUES ('bob', {NEXT}, %(refused)s, 3, 'FINISHED');
            UPDATE users SET feed_number = feed_number + 1 WHERE user_id = 'bob';
            UPDATE orders SET status = 'FINISHED', reason = NULL, version = 3 WHERE order_id = %(refused)s""",
    ),
    Damage(
        "a feed has a gap",
        "orders",
        {"9", "11"},
        "ann",
        """UPDATE order_history SET feed_number = feed_number + 1 WHERE (user_id, feed_number) IN
           (SELECT user_id, max(feed_number) FROM order_history WHERE user_id = 'ann' GROUP BY user_id)""",
    ),
    Damage(
        "a feed is shorter than it counts",
        "orders",
        {"9"},
        "bob",
        "UPDATE users SET feed_number = feed_number + 1 WHERE user_id = 'bob'",
    ),
    Damage(
        "a wallet's feed is longer than it counts",
        "payments",
        {"9"},
        "ann",
        "UPDATE wallets SET feed_number = feed_number - 1 WHERE user_id = 'ann'",
    ),
    Damage(
        "a message has overtaken one of the same user",
        "orders",
        {"9"},
        "ann",
        """ALTER TABLE outbox ALTER outbox_id SET GENERATED BY DEFAULT;
           UPDATE outbox SET outbox_id = 1000000
           WHERE outbox_id = (SELECT min(outbox_id) FROM outbox WHERE user_id = 'ann');
           ALTER TABLE outbox ALTER outbox_id SET GENERATED ALWAYS""",
    ),
    Damage(
        "a watermark is behind",
        "payments",
        {"10"},
        "payments",
        """UPDATE watermarks SET next_offset = next_offset - 1
           WHERE partition = (SELECT partition FROM watermarks WHERE next_offset > 0 LIMIT 1)""",
    ),
    Damage("a watermark is not there", "orders", {"10"}, "orders", "DELETE FROM watermarks"),
    Damage(
        "an order has no message",
        "orders",
        {"11"},
        "bob",
        f"""INSERT INTO orders (order_id, user_id, feed_number, amount_minor, currency, repeat_at)
            VALUES ('{NOBODYS}', 'bob', {NEXT}, 1, 'USD', now() + interval '60 seconds');
            INSERT INTO order_history (user_id, feed_number, order_id, version, status)
            VALUES ('bob', {NEXT}, '{NOBODYS}', 1, 'NEW');
            UPDATE users SET feed_number = feed_number + 1 WHERE user_id = 'bob'""",
    ),
    Damage(
        "a wallet's change has no message",
        "payments",
        {"11"},
        "bob",
        """INSERT INTO wallet_history (user_id, feed_number, balance_minor, currency)
           SELECT user_id, feed_number + 1, balance_minor, currency FROM wallets WHERE user_id = 'bob';
           UPDATE wallets SET feed_number = feed_number + 1 WHERE user_id = 'bob'""",
    ),
    Damage(
        "an order's change is announced twice",
        "orders",
        {"11"},
        "ann",
        f"""INSERT INTO outbox (message_id, {COPIED})
            SELECT '{NOBODYS}', {COPIED} FROM outbox WHERE message_id = %(message in orders)s""",
    ),
    Damage(
        "a capture is announced for another question",
        "payments",
        {"11", "13"},
        "ann",
        "UPDATE outbox SET causation_id = 'nobody' WHERE message_id = %(message in payments)s",
    ),
    Damage(
        "money was moved by no message",
        "payments",
        {"12"},
        "paid",
        f"""{DISCARDED};
            DELETE FROM inbox WHERE message_id = %(message in orders)s""",
    ),
    Damage(
        "a question has no answer",
        "payments",
        {"13"},
        "question",
        "UPDATE outbox SET causation_id = 'nobody' WHERE causation_id = %(question)s",
    ),
    Damage(
        "a question has two answers",
        "payments",
        {"13"},
        "question",
        f"""INSERT INTO outbox (message_id, {COPIED})
            SELECT '{NOBODYS}', {COPIED} FROM outbox WHERE causation_id = %(question)s""",
    ),
    Damage(
        "an order is long past its deadline",
        "orders",
        {"11", "L1"},
        NOBODYS,
        f"""INSERT INTO orders (order_id, user_id, feed_number, amount_minor, currency, repeat_at)
            VALUES ('{NOBODYS}', 'bob', {NEXT}, 1, 'USD', now() - interval '61 seconds');
            INSERT INTO order_history (user_id, feed_number, order_id, version, status)
            VALUES ('bob', {NEXT}, '{NOBODYS}', 1, 'NEW');
            UPDATE users SET feed_number = feed_number + 1 WHERE user_id = 'bob'""",
    ),
    Damage(
        "an end that was asked for has not come",
        "orders",
        {"L1"},
        "paid",
        "UPDATE orders SET cancellation_reason = 'user' WHERE order_id = %(paid)s",
    ),
    Damage(
        "a message waits in the outbox",
        "payments",
        {"L2"},
        "message in payments",
        """UPDATE outbox SET created_at = now() - interval '11 seconds', sent_at = NULL,
           sent_partition = NULL, sent_offset = NULL WHERE message_id = %(message in payments)s""",
    ),
)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.what.replace(" ", "-"))
def test_damage_is_seen_and_named_and_nothing_else_is(world: World, damage: Damage) -> None:
    about = {**world.orders, **messages(world)}
    with world.damaged(damage.service, damage.sql, **about):
        report = world.audit()
        assert broken(report) == damage.breaks
        assert not report.ok
        assert about.get(damage.names, damage.names) in named(report)
    assert broken(world.audit()) == set()


def messages(world: World) -> dict[str, str]:
    """Return the ids of what was said first: of the paid order by both, and of the refused one by orders."""
    found = {}
    for service, name, order in (
        ("orders", "message in orders", "paid"),
        ("payments", "message in payments", "paid"),
        ("orders", "question", "refused"),
    ):
        (row,) = world.sql(
            service,
            "SELECT message_id FROM outbox WHERE body::jsonb ->> 'order_id' = %(order)s"
            " AND type ~ 'OrderCreated|PaymentCaptured'",
            order=world.orders[order],
        )
        found[name] = row.message_id
    return found


def test_two_orders_under_one_key_are_seen(world: World) -> None:
    lift = "ALTER TABLE orders DROP CONSTRAINT orders_user_id_idempotency_key_key"
    double = "UPDATE orders SET idempotency_key = 'key-0' WHERE user_id = 'ann'"
    with world.damaged("orders", lift, double):
        report = world.audit()
        assert broken(report) == {"5"}
        assert "ann" in named(report)
    world.sql("orders", "ALTER TABLE orders ADD UNIQUE (user_id, idempotency_key)")
    assert broken(world.audit()) == set()


def test_what_is_in_flight_is_no_break(world: World) -> None:
    """The refund is decided, its message is on the topic, and orders has not read it."""
    unclaimed = "DELETE FROM inbox WHERE message_id = %(message)s"
    unread = """
    DELETE FROM order_history WHERE order_id = %(refunded)s AND version = 3;
    UPDATE orders SET status = 'FINISHED', reason = NULL, version = 2, cancellation_reason = NULL
    WHERE order_id = %(refunded)s;
    UPDATE users SET feed_number = feed_number - 1 WHERE user_id = 'ann';
    DELETE FROM watermarks
    """
    (refund,) = world.sql("payments", "SELECT message_id FROM outbox WHERE type LIKE '%%PaymentRefunded'")
    about = {**world.orders, "message": refund.message_id}
    with world.damaged("orders", unclaimed, unread, **about):
        report = world.audit(skipped=frozenset({"10"}))
        assert broken(report) == set()
        assert report.findings.unjudged["orders_that_keep_moving"] == 1
    with world.damaged("orders", unread, **about):
        assert broken(world.audit(skipped=frozenset({"10"}))) == {"3", "7"}


def test_group_that_does_not_read_is_seen(world: World) -> None:
    elsewhere = world.settings.model_copy(update={"group_suffix": "-nobody"})
    report = replace(world, settings=elsewhere).audit()
    assert broken(report) == {"L3"}
    assert "eshop-payments-nobody" in named(report)


def test_what_retention_may_have_taken_is_counted_and_not_judged(world: World) -> None:
    old = "UPDATE outbox SET sent_at = now() - interval '8 days', sent_offset = sent_offset - 1000"
    with world.damaged("orders", f"{old} WHERE message_id = %(message in orders)s", **messages(world)):
        report = world.audit()
        assert report.findings.unjudged["outbox_rows"] == 1
        assert broken(report) == set()


UNANNOUNCED = (
    f"""
    INSERT INTO orders (order_id, user_id, feed_number, amount_minor, currency, repeat_at, status, version)
    SELECT '{NOBODYS}', user_id, feed_number + 1, 7, 'USD', now(), 'FINISHED', 2
    FROM users WHERE user_id = 'ann';
    INSERT INTO order_history (user_id, feed_number, order_id, version, status, at)
    SELECT user_id, feed_number + v, '{NOBODYS}', v, CASE v WHEN 1 THEN 'NEW' ELSE 'FINISHED' END, %(at)s
    FROM users, generate_series(1, 2) AS v WHERE user_id = 'ann';
    UPDATE users SET feed_number = feed_number + 2 WHERE user_id = 'ann'
    """,
    f"""
    INSERT INTO payments
    SELECT '{NOBODYS}', user_id, 'CAPTURED', 7, 'USD', NULL, feed_number + 1, balance_minor - 7
    FROM wallets WHERE user_id = 'ann';
    INSERT INTO transfers (transfer_id, kind, user_id, currency, order_id, created_at)
    VALUES ('{NOBODYS}', 'capture', 'ann', 'USD', '{NOBODYS}', %(at)s);
    INSERT INTO legs VALUES
        ('{NOBODYS}', 0, 'wallet', 'ann', -7), ('{NOBODYS}', 1, 'sales', NULL, 7);
    INSERT INTO wallet_history (user_id, feed_number, balance_minor, currency, transfer_id, at)
    SELECT user_id, feed_number + 1, balance_minor - 7, 'USD', '{NOBODYS}', %(at)s
    FROM wallets WHERE user_id = 'ann';
    UPDATE wallets SET feed_number = feed_number + 1, balance_minor = balance_minor - 7 WHERE user_id = 'ann'
    """,
)


def test_order_that_was_paid_without_any_message_is_seen(world: World) -> None:
    """Both databases agree about it, and nothing was ever sent."""
    orders, payments = UNANNOUNCED
    now = datetime.now(UTC)
    with world.damaged("orders", orders, at=now), world.damaged("payments", payments, at=now):
        report = world.audit()
        assert broken(report) == {"11", "12"}
        assert (report.findings.broken["11"], report.findings.broken["12"]) == (3, 1)
        assert NOBODYS in named(report)
    old = now - timedelta(days=15)
    with world.damaged("orders", orders, at=old), world.damaged("payments", payments, at=old):
        report = world.audit()
        assert broken(report) == set()
        unjudged = report.findings.unjudged
        assert (unjudged["history_entries"], unjudged["transfers"]) == (3, 1)


def test_refund_that_an_operator_made_in_payments_needs_no_message(world: World) -> None:
    refund = "(SELECT transfer_id FROM transfers WHERE kind = 'refund')"
    other = (
        f"DELETE FROM inbox WHERE message_id = {refund}",
        f"UPDATE outbox SET causation_id = '{NOBODYS}' WHERE causation_id = {refund}::text",
        f"UPDATE legs SET transfer_id = '{NOBODYS}' WHERE transfer_id = {refund}",
        f"UPDATE wallet_history SET transfer_id = '{NOBODYS}' WHERE transfer_id = {refund}",
        f"UPDATE transfers SET transfer_id = '{NOBODYS}' WHERE kind = 'refund'",
    )
    recorded = """
    INSERT INTO operator_actions (action, user_id, order_id, reason, operator)
    VALUES ('refund', 'ann', %(refunded)s, 'it was never made', 'eve')
    """
    with world.damaged("payments", *other, **world.orders):
        report = world.audit()
        assert (broken(report), report.findings.broken["12"]) == ({"7", "12"}, 1)
    with world.damaged("payments", *other, recorded, **world.orders):
        assert broken(world.audit()) == {"7"}


def test_question_that_was_given_up_needs_no_answer(world: World) -> None:
    about = messages(world)
    unanswered = "UPDATE outbox SET causation_id = 'nobody' WHERE causation_id = %(question)s"
    given_up = DISCARDED.replace("message in orders", "question")
    with world.damaged("payments", unanswered, given_up, **about):
        assert broken(world.audit()) == set()


def test_outcome_that_is_told_again_is_no_second_announcement(cluster: EmbeddedCluster) -> None:
    world = make_world(cluster.postgres_admin_url, cluster.kafka, questions=3)
    told = "SELECT count(DISTINCT body::jsonb ->> 'feed_number') AS numbers, count(*) AS times FROM outbox"
    (refunds,) = world.sql("payments", f"{told} WHERE type LIKE '%%PaymentRefunded'")
    assert (refunds.numbers, refunds.times) == (1, 3)
    report = world.audit()
    assert broken(report) == set()
    assert report.findings.checked["questions"] == 8


async def produce(world: World, row: Any, partition: int) -> Any:
    """Put a row of orders' outbox on its topic; return where it is."""
    headers = [("ce_id", row.message_id.encode()), ("ce_type", row.type.encode())]
    async with AIOKafkaProducer(bootstrap_servers=world.kafka) as producer:
        return await producer.send_and_wait(
            world.settings.topic(row.topic),
            row.body.encode(),
            key=row.user_id.encode(),
            partition=partition,
            headers=headers,
        )


def test_message_in_another_partition_than_its_user_is_seen(cluster: EmbeddedCluster) -> None:
    world = make_world(cluster.postgres_admin_url, cluster.kafka)
    (row,) = world.sql("orders", "SELECT * FROM outbox WHERE user_id = 'dee' ORDER BY outbox_id LIMIT 1")
    asyncio.run(produce(world, row, (row.sent_partition + 1) % ORDERS_EVENTS.partitions))
    report = world.audit(skipped=frozenset({"L3"}))
    assert (broken(report), report.findings.broken["14"]) == ({"14"}, 1)
    assert row.message_id in named(report)


def test_message_of_a_type_that_a_newer_version_sends_needs_no_answer(cluster: EmbeddedCluster) -> None:
    """It is in the outbox and on the topic, and was claimed and passed over."""
    world = make_world(cluster.postgres_admin_url, cluster.kafka)
    (row,) = world.sql(
        "orders",
        """INSERT INTO outbox (topic, user_id, type, source, dataschema, body, correlation_id, causation_id)
            SELECT topic, user_id, 'eshop.orders.OrderPraised', source, 'eshop/orders/v1/OrderPraised',
                '{"stars": 5}', 'c', 'c' FROM outbox WHERE user_id = 'dee' LIMIT 1 RETURNING *""",
    )
    (partition,) = world.sql(
        "orders", "SELECT sent_partition AS it FROM outbox WHERE user_id = 'dee' LIMIT 1"
    )
    stored = asyncio.run(produce(world, row, partition.it))
    place = {"id": row.message_id, "topic": stored.topic, "partition": partition.it, "at": stored.offset}
    world.sql(
        "orders",
        "UPDATE outbox SET sent_at = now(), sent_partition = %(partition)s, sent_offset = %(at)s"
        " WHERE message_id = %(id)s",
        **place,
    )
    world.sql(
        "payments",
        "INSERT INTO inbox VALUES ('payments', %(id)s, %(topic)s, %(partition)s, %(at)s)",
        "UPDATE watermarks SET next_offset = %(at)s + 1 WHERE partition = %(partition)s",
        **place,
    )
    assert broken(world.audit(skipped=frozenset({"L3"}))) == set()


def test_no_snapshot_of_a_long_audit_is_older_than_the_bound(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read slowly and by small pages: the server would end a session that keeps its snapshot longer."""
    bound = 3
    slow_down(monkeypatch, seconds=0.05, rows=2)
    monkeypatch.setattr("eshop.audit.databases.SNAPSHOT_SECONDS_MAX", bound)
    with oldest_snapshot(world.admin_url) as ages:
        report = world.audit()
    assert broken(report) == set()
    assert report.seconds > 2 * bound
    assert 0 < max(ages) < bound


def test_snapshot_that_is_held_too_long_is_ended_and_no_verdict(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_down(monkeypatch, seconds=0.5, rows=2)
    monkeypatch.setattr("eshop.audit.databases.SNAPSHOT_SECONDS_MAX", 0.2)
    with pytest.raises(NotJudged, match="would have lived"):
        world.audit()


DEAD_LETTER = f"""
INSERT INTO dead_letters (consumer, message_id, topic, partition, "offset", headers, cause, error)
VALUES ('payments', '{NOBODYS}', %(topic)s, %(partition)s, %(offset)s, '[]', 'undecodable', 'no JSON')
"""


async def produce_twice(kafka: str, topic: str) -> dict[str, Any]:
    """Put something on a topic that nobody wrote, and once more; return where it is first."""
    headers = [("ce_id", NOBODYS.encode())]
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        stored, _ = [
            await producer.send_and_wait(topic, b"no JSON", key=b"eve", partition=0, headers=headers)
            for _ in range(2)
        ]
    return {"topic": topic, "partition": stored.partition, "offset": stored.offset}


def test_foreign_message_is_seen_until_it_is_set_aside(cluster: EmbeddedCluster) -> None:
    world = make_world(cluster.postgres_admin_url, cluster.kafka)
    place = asyncio.run(produce_twice(cluster.kafka, world.settings.topic(ORDERS_EVENTS.name)))
    unread = frozenset({"L3"})
    report = world.audit(skipped=unread)
    assert (broken(report), report.findings.broken["6"]) == ({"6"}, 2)
    assert "eve" in named(report)
    read = "UPDATE watermarks SET next_offset = %(offset)s + 2 WHERE partition = 0"
    with world.damaged("payments", read, **place):
        assert broken(world.audit(skipped=unread)) == {"6", "7"}
    with world.damaged("payments", read, DEAD_LETTER, **place):
        report = world.audit(skipped=unread)
        assert (broken(report), report.ok) == ({"L4"}, True)
    discard = "UPDATE dead_letters SET status = 'discarded', resolved_at = now()"
    with world.damaged("payments", read, DEAD_LETTER, discard, **place):
        assert broken(world.audit(skipped=unread)) == set()


def test_payment_of_an_order_that_is_nowhere_is_explained_once_an_operator_gave_it_back(world: World) -> None:
    gone = (
        "DELETE FROM orders WHERE order_id = %(order)s",
        "DELETE FROM order_history WHERE order_id = %(order)s",
    )
    refund = """
    INSERT INTO operator_actions (action, user_id, order_id, reason, operator)
    VALUES ('refund', 'ann', %(order)s, 'nowhere', 'olga')
    """
    for name, judged in (("refunded", set()), ("paid", {"4"})):  # what is still captured stays a break
        order = world.orders[name]
        with world.damaged("orders", *gone, order=order):
            before = world.audit()
            assert {"4", "7"} <= broken(before)
            with world.damaged("payments", refund, order=order):
                report = world.audit()
                assert broken(report) & {"3", "4"} == judged
                assert report.findings.broken["7"] == before.findings.broken["7"]


def answer(world: World, status: int, order: str, key: str, user_id: str = "ann") -> dict[str, Any]:
    """Return a line of a load client's file."""
    return {
        "status": status,
        "order_id": world.orders.get(order, order) if status == 201 else None,
        "idempotency_key": key,
        "user_id": user_id,
    }


def test_what_clients_were_told_is_compared(world: World, tmp_path: Path) -> None:
    path = tmp_path / "answers"

    def told(*answers: dict[str, Any]) -> set[str]:
        path.write_text("".join(json.dumps(one) + "\n" for one in answers))
        report = world.audit(answers=path)
        assert report.findings.checked["answers"] == len(answers)
        assert "4" not in broken(report) or named(report) & {*world.orders.values(), NOBODYS}
        return broken(report)

    made = answer(world, 201, "paid", "key-0")
    assert told(made, made, answer(world, 503, "", "key-9"), answer(world, 422, "", "key-8")) == set()
    assert told(answer(world, 409, "", "key-0"), made) == set()
    assert told(answer(world, 409, "", "key-0"), answer(world, 0, "", "key-0")) == set()
    assert told(answer(world, 409, "", "key-0")) == {"4"}
    assert told(answer(world, 201, NOBODYS, "key-0")) == {"4"}
    assert told(answer(world, 201, "paid", "key-1")) == {"4"}
    assert told(answer(world, 201, "paid", "key-0", "bob")) == {"4"}


@pytest.mark.parametrize("lost", ["orders", "payments", "kafka", "topics"])
def test_what_does_not_answer_is_no_verdict(world: World, lost: str) -> None:
    nowhere = "127.0.0.1:1"
    changes: dict[str, Any] = {
        "kafka": {"kafka": nowhere},
        "topics": {"settings": world.settings.model_copy(update={"topic_prefix": "nobodys."})},
    }
    urls = {"urls": {**world.urls, lost: f"postgresql://ann:secret@{nowhere}/orders"}}
    with pytest.raises(NotJudged) as raised:
        replace(world, **changes.get(lost, urls)).audit()
    assert "secret" not in str(raised.value)


@pytest.fixture
def command(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Run `eshop audit` on the world; return its exit code and what it says."""
    environment = {
        "ESHOP_KAFKA": world.kafka,
        "ESHOP_ORDERS_DATABASE_URL": world.urls["orders"],
        "ESHOP_PAYMENTS_DATABASE_URL": world.urls["payments"],
        "ESHOP_TOPIC_PREFIX": world.settings.topic_prefix,
        "ESHOP_GROUP_SUFFIX": world.settings.group_suffix,
        "ESHOP_DATA": str(tmp_path),
        "COLUMNS": "200",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def run(*words: str) -> tuple[int, str]:
        told = subprocess.run(
            [sys.executable, "-m", "eshop.cli", "audit", "--settle", "0", *words],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return told.returncode, told.stdout + told.stderr

    return run


def test_command_tells_by_its_exit_code(world: World, command: Command, tmp_path: Path) -> None:
    code, text = command()
    assert (code, "paid once or not at all" in text) == (0, True)
    paid = world.orders["paid"]
    with world.damaged(
        "payments", "UPDATE payments SET amount_minor = 7 WHERE order_id = %(paid)s", paid=paid
    ):
        code, text = command()
        assert (code, paid in text) == (1, True)
        code, text = command("--json")
        told = json.loads(text)
        assert (code, told["ok"], told["judged"]) == (1, False, True)
        (third,) = [one for one in told["invariants"] if one["broken"]]
        assert (third["id"], third["broken"]) == ("3", 1)
        assert third["examples"][0]["about"] == {"order": paid, "user": "ann"}
        assert third["examples"][0]["saw"]["payments"] == "CAPTURED 7 USD of ann"
        assert command("--except", "3")[0] == 0
    code, text = command("--json", "--payments-database", "postgresql://ann:secret@127.0.0.1:1/payments")
    assert (code, json.loads(text)["judged"], "secret" in text) == (2, False, False)
    assert command("--except", "99")[0] == 2
    answers = tmp_path / "answers"
    answers.write_text('{"status": 201}\n')
    code, text = command("--answers", str(answers))
    assert (code, "line 1" in text) == (2, True)
