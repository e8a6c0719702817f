"""The audit is green on a clean shop, and red on each damage that it claims to see, and for that alone."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from eshop.audit.findings import INVARIANTS, NotJudged, Report
from eshop.cluster.embedded import EmbeddedCluster
from eshop.contracts.topics import ORDERS_EVENTS
from tests.integration.audit_world import World, make_world

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
NEXT = "(SELECT max(seq) + 1 FROM order_history WHERE user_id = 'bob')"
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
        "UPDATE wallet_history SET balance_minor = balance_minor + 1 WHERE user_id = 'ann' AND seq = 2",
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
        {"6"},
        "message in orders",
        "DELETE FROM outbox WHERE message_id = %(message in orders)s",
    ),
    Damage(
        "a sent row of the other outbox is gone",
        "payments",
        {"6"},
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
        {"6"},
        "paid",
        "UPDATE outbox SET type = 'eshop.payments.Other' WHERE message_id = %(message in payments)s",
    ),
    Damage(
        "a message is missing past the end of a log",
        "orders",
        {"6"},
        NOBODYS,
        f"""INSERT INTO outbox (message_id, sent_at, sent_partition, sent_offset, {COPIED})
            SELECT '{NOBODYS}', now(), 11, 1000000, {COPIED} FROM outbox LIMIT 1""",
    ),
    Damage(
        "a message is missing in a log",
        "payments",
        {"6"},
        NOBODYS,
        f"""INSERT INTO outbox (message_id, sent_at, sent_partition, sent_offset, {COPIED})
            SELECT '{NOBODYS}', sent_at, sent_partition, 0, {COPIED}
            FROM outbox WHERE message_id = %(message in payments)s""",
    ),
    Damage(
        "a message was read and not claimed",
        "payments",
        {"7"},
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
           UPDATE users SET feed_seq = feed_seq - 1 WHERE user_id = 'dee'""",
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
        {"3", "7", "8"},
        "refused",
        f"""INSERT INTO order_history (user_id, seq, order_id, version, status)
            VALUES ('bob', {NEXT}, %(refused)s, 3, 'FINISHED');
            UPDATE users SET feed_seq = feed_seq + 1 WHERE user_id = 'bob';
            UPDATE orders SET status = 'FINISHED', reason = NULL, version = 3 WHERE order_id = %(refused)s""",
    ),
    Damage(
        "a feed has a gap",
        "orders",
        {"9"},
        "ann",
        """UPDATE order_history SET seq = seq + 1 WHERE (user_id, seq) IN
           (SELECT user_id, max(seq) FROM order_history WHERE user_id = 'ann' GROUP BY user_id)""",
    ),
    Damage(
        "a feed is shorter than it counts",
        "orders",
        {"9"},
        "bob",
        "UPDATE users SET feed_seq = feed_seq + 1 WHERE user_id = 'bob'",
    ),
    Damage(
        "a wallet's feed is longer than it counts",
        "payments",
        {"9"},
        "ann",
        "UPDATE wallets SET feed_seq = feed_seq - 1 WHERE user_id = 'ann'",
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
        "an order is long past its deadline",
        "orders",
        {"L1"},
        NOBODYS,
        f"""INSERT INTO orders (order_id, user_id, number, amount_minor, currency, ask_at)
            VALUES ('{NOBODYS}', 'bob', {NEXT}, 1, 'USD', now() - interval '61 seconds');
            INSERT INTO order_history (user_id, seq, order_id, version, status)
            VALUES ('bob', {NEXT}, '{NOBODYS}', 1, 'NEW');
            UPDATE users SET feed_seq = feed_seq + 1 WHERE user_id = 'bob'""",
    ),
    Damage(
        "an end that was asked for has not come",
        "orders",
        {"L1"},
        "paid",
        "UPDATE orders SET ending = 'user' WHERE order_id = %(paid)s",
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
    """Return the ids of what orders and payments said first of the paid order."""
    found = {}
    for service, name in (("orders", "message in orders"), ("payments", "message in payments")):
        (row,) = world.sql(
            service,
            "SELECT message_id FROM outbox WHERE body::jsonb ->> 'order_id' = %(paid)s"
            " AND type ~ 'OrderCreated|PaymentCaptured'",
            paid=world.orders["paid"],
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
    UPDATE orders SET status = 'FINISHED', reason = NULL, version = 2, ending = NULL
    WHERE order_id = %(refunded)s;
    UPDATE users SET feed_seq = feed_seq - 1 WHERE user_id = 'ann';
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
    assert command("--except", "13")[0] == 2
    answers = tmp_path / "answers"
    answers.write_text('{"status": 201}\n')
    code, text = command("--answers", str(answers))
    assert (code, "line 1" in text) == (2, True)
