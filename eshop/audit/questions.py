"""Commands that payments has claimed against its results: each has one, with its id as the cause."""

from collections.abc import Sequence

from eshop.audit.broker import Record, place
from eshop.audit.databases import Database
from eshop.audit.findings import Findings
from eshop.audit.spool import Spool

#: Types with a result. A type that this version does not know is claimed without a result.
QUESTIONS = frozenset({"eshop.orders.OrderCreated", "eshop.orders.OrderCancellationRequested"})
_ANSWERS = """
SELECT causation_id FROM outbox WHERE type = ANY (%(types)s) AND {page}
"""
_ANSWER_TYPES = [f"eshop.payments.Payment{outcome}" for outcome in ("Captured", "Refused", "Refunded")]
#: A command that was published twice is one command.
_KEEP = "INSERT OR IGNORE INTO questions (message_id, user_id, place) VALUES (?, ?, ?)"
_COUNT = "UPDATE questions SET answers = answers + 1 WHERE message_id = ?"


def spool_questions(records: Sequence[Record], spool: Spool) -> None:
    """Remember commands that were claimed and are no dead letters."""
    spool.write(
        _KEEP,
        [(r.message_id, r.key.decode(errors="replace"), place(r.partition, r.offset)) for r in records],
    )


def check_questions(payments: Database, spool: Spool, findings: Findings) -> None:
    """Judge 13. The claims were read before: an answer is of the transaction of its claim."""
    for snapshot, page in payments.pages("outbox", "outbox_id"):
        rows = snapshot.rows(_ANSWERS, page, types=_ANSWER_TYPES)
        spool.write(_COUNT, [(row.causation_id,) for row in rows])
    for question in spool.read("SELECT * FROM questions WHERE answers <> 1 ORDER BY message_id"):
        findings.add(
            "13",
            {"message": question["message_id"], "user": question["user_id"], "place": question["place"]},
            inbox="claimed",
            outbox=f"{question['answers']} answers",
        )
    (judged,) = spool.read("SELECT count(*) AS number FROM questions")
    findings.checked["questions"] += judged["number"]
