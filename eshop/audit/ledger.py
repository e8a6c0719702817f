"""Money: wallets, legs, transfers and each wallet's history, a page of users or of transfers at a time.

A transfer and its legs are of one transaction and never change: the sum of all pages is the sum of all.
"""

from collections import Counter
from typing import Any

from eshop.audit.databases import PAGE_USERS, Database, Page, Snapshot
from eshop.audit.findings import Findings

#: How long inboxes keep ids, less a day: of older transfers the message may be forgotten.
INBOX_DAYS = 14

_WALLETS = """
SELECT user_id, balance_minor, coalesce(legs_minor, 0) AS legs_minor
FROM (SELECT * FROM wallets WHERE {page}) AS wallets
FULL JOIN (
    SELECT user_id, sum(amount_minor) AS legs_minor FROM legs
    WHERE user_id IS NOT NULL AND {page} GROUP BY user_id
) AS posted USING (user_id)
WHERE balance_minor IS DISTINCT FROM coalesce(legs_minor, 0) OR balance_minor < 0
ORDER BY user_id
"""
_TRANSFERS = """
SELECT transfer_id, t.user_id, t.order_id, t.kind, sum_minor, described AS legs
FROM (SELECT * FROM transfers WHERE {page}) AS t CROSS JOIN LATERAL (
    SELECT count(*) AS number, coalesce(sum(l.amount_minor), 0) AS sum_minor,
        string_agg(l.account || ' ' || l.amount_minor, ', ' ORDER BY l.leg) AS described,
        count(*) FILTER (WHERE l.account = 'wallet' AND l.user_id <> t.user_id) AS of_others
    FROM legs AS l WHERE l.transfer_id = t.transfer_id
) AS posted
WHERE number < 2 OR sum_minor <> 0 OR of_others > 0
ORDER BY transfer_id
"""
_HISTORY = """
SELECT user_id, feed_number, before_minor, moved_minor, balance_minor
FROM (
    SELECT h.user_id, h.feed_number, h.balance_minor, coalesce(l.amount_minor, 0) AS moved_minor,
        coalesce(lag(h.balance_minor) OVER (PARTITION BY h.user_id ORDER BY h.feed_number), 0) AS before_minor
    FROM (SELECT * FROM wallet_history WHERE {page}) AS h
    LEFT JOIN legs AS l ON l.transfer_id = h.transfer_id AND l.account = 'wallet'
) AS changes
WHERE balance_minor <> before_minor + moved_minor
ORDER BY user_id, feed_number
"""
_TOTALS = """
SELECT currency, sum(posted.sum_minor) AS sum_minor, sum(posted.legs)::bigint AS legs
FROM (SELECT * FROM transfers WHERE {page}) AS t CROSS JOIN LATERAL (
    SELECT sum(l.amount_minor) AS sum_minor, count(*) AS legs
    FROM legs AS l WHERE l.transfer_id = t.transfer_id
) AS posted
GROUP BY currency
"""
#: Captures and refunds that neither a message in the inbox nor an operator caused.
_CAUSELESS = """
SELECT transfer_id, t.user_id, t.order_id, t.kind,
    t.created_at < now() - make_interval(days => %(days)s) AS is_old
FROM (SELECT * FROM transfers WHERE kind <> 'top_up' AND {page}) AS t
    LEFT JOIN inbox AS i ON i.consumer = 'payments' AND i.message_id = t.transfer_id
WHERE i.message_id IS NULL AND NOT (
    t.kind = 'refund'
    AND EXISTS (SELECT FROM operator_actions AS o WHERE o.action = 'refund' AND o.order_id = t.order_id)
)
ORDER BY transfer_id
"""


def check_ledger(payments: Database, findings: Findings) -> None:
    """Judge 1, 2 and 12."""
    for snapshot, page in payments.pages("wallets", "user_id", PAGE_USERS):
        _check_wallets(snapshot, page, findings)
    totals: Counter[str] = Counter()
    for snapshot, page in payments.pages("transfers", "transfer_id"):
        _check_transfers(snapshot, page, findings)
        for row in snapshot.rows(_TOTALS, page):
            totals[row.currency] += row.sum_minor
            findings.checked["legs"] += row.legs
    for currency, sum_minor in sorted(totals.items()):
        if sum_minor:
            findings.add("2", {"currency": currency}, sum_of_all_legs=sum_minor)


def _check_wallets(payments: Snapshot, page: Page, findings: Findings) -> None:
    for row in payments.rows(_WALLETS, page):
        findings.add("1", {"user": row.user_id}, wallet=row.balance_minor, sum_of_legs=row.legs_minor)
    for row in payments.rows(_HISTORY, page):
        findings.add(
            "1",
            {"user": row.user_id},
            wallet_history=f"number {row.feed_number} ends at {row.balance_minor}",
            ledger=f"{row.before_minor} before it, {row.moved_minor:+} moved",
        )
    findings.checked.update(
        payments.rows("SELECT count(*) AS wallets FROM wallets WHERE {page}", page)[0]._asdict()
    )


def _check_transfers(payments: Snapshot, page: Page, findings: Findings) -> None:
    for row in payments.rows(_TRANSFERS, page):
        findings.add("1", _about(row), legs=row.legs, sum_of_legs=row.sum_minor)
    for row in payments.rows(_CAUSELESS, page, days=INBOX_DAYS):
        if row.is_old:
            findings.unjudged["transfers"] += 1
        else:
            findings.add("12", _about(row), ledger=row.kind, inbox=None)


def _about(transfer: Any) -> dict[str, object]:
    about = {"transfer": transfer.transfer_id, "user": transfer.user_id, "order": transfer.order_id}
    return {name: value for name, value in about.items() if value is not None}
