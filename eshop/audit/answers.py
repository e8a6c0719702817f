"""The log of a load client against the stored orders: a file of JSON lines.

Each line is the response to a request for an order: ``{"status": 201, "order_id": …, "idempotency_key": …,
"user_id": …}``. A status that is neither 2xx nor 4xx (503; 0 for a lost connection) leaves the outcome open.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Self
from uuid import UUID

from eshop.audit.databases import PAGE_ROWS, Database, Snapshot
from eshop.audit.findings import Findings, NotJudged

_BY_ID = "SELECT order_id, user_id, idempotency_key FROM orders WHERE order_id = ANY (%(ids)s::uuid[])"
_BY_KEY = """
SELECT order_id, user_id, idempotency_key FROM orders
WHERE (user_id, idempotency_key) IN (SELECT * FROM unnest(%(users)s::text[], %(keys)s::text[]))
"""

#: (user, idempotency key)
_Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """The response to a request."""

    status: int
    user_id: str
    order_id: str | None
    key: str | None

    @classmethod
    def parse(cls, line: str) -> Self:
        """Read a line; raise ValueError or LookupError if it is malformed."""
        told = json.loads(line)
        answer = cls(
            int(told["status"]), str(told["user_id"]), told.get("order_id"), told.get("idempotency_key")
        )
        if answer.is_made:
            UUID(answer.order_id)
        return answer

    @property
    def is_made(self) -> bool:
        """Whether the response names an order."""
        return self.status // 100 == 2

    @property
    def is_refused(self) -> bool:
        """Whether the response says that nothing was done."""
        return self.status // 100 == 4


def check_answers(path: Path, orders: Database, findings: Findings) -> None:
    """Judge the part of 4 about clients. Their responses were written before."""
    left: dict[_Key, str] = {}
    for page in _pages(path):
        with orders.snapshot() as snapshot:
            _judge_made(page, snapshot, findings)
            left |= _left_by_refused(page, snapshot)
        findings.checked["answers"] += len(page)
    # A refused request that was repeated under its key may have had its order then.
    for page in _pages(path) if left else ():
        for answer in page:
            if answer.key is not None and not answer.is_refused:
                left.pop((answer.user_id, answer.key), None)
    for (user_id, key), order_id in left.items():
        findings.add(
            "4", {"order": order_id, "user": user_id}, told="refused", idempotency_key=key, orders="made"
        )


def _pages(path: Path) -> Iterator[list[Answer]]:
    with path.open(encoding="utf-8") as lines:
        answers = _parsed(path, lines)
        while page := list(islice(answers, PAGE_ROWS)):
            yield page


def _parsed(path: Path, lines: Iterable[str]) -> Iterator[Answer]:
    for number, line in enumerate(lines, start=1):
        try:
            yield Answer.parse(line)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise NotJudged(f"{path}, line {number} is no answer: {error}") from error


def _judge_made(page: list[Answer], orders: Snapshot, findings: Findings) -> None:
    """Every order in a response exists, is the client's, and has the client's key."""
    made = [answer for answer in page if answer.is_made]
    rows = {row.order_id: row for row in orders.rows(_BY_ID, ids=[answer.order_id for answer in made])}
    for answer in made:
        row = rows.get(answer.order_id)
        key = answer.key
        if row is None or row.user_id != answer.user_id or (key and row.idempotency_key != key):
            findings.add(
                "4",
                {"order": answer.order_id, "user": answer.user_id},
                told=f"made, under the key {key}",
                orders=row and f"of {row.user_id}, under the key {row.idempotency_key}",
            )


def _left_by_refused(page: list[Answer], orders: Snapshot) -> dict[_Key, str]:
    refused = {(answer.user_id, answer.key) for answer in page if answer.is_refused and answer.key}
    if not refused:
        return {}
    users, keys = zip(*sorted(refused), strict=True)
    rows = orders.rows(_BY_KEY, users=list(users), keys=list(keys))
    return {(row.user_id, row.idempotency_key): row.order_id for row in rows}
