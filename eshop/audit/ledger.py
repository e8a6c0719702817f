"""Money, in one snapshot of payments: wallets, legs, transfers, and each wallet's history."""

from eshop.audit.databases import Snapshot
from eshop.audit.findings import Findings

_WALLETS = """
SELECT user_id, balance_minor, coalesce(legs_minor, 0) AS legs_minor
FROM wallets
FULL JOIN (
    SELECT user_id, sum(amount_minor) AS legs_minor FROM legs WHERE user_id IS NOT NULL GROUP BY user_id
) AS posted USING (user_id)
WHERE balance_minor IS DISTINCT FROM coalesce(legs_minor, 0) OR balance_minor < 0
ORDER BY user_id
"""
_TRANSFERS = """
SELECT transfer_id, t.user_id, t.order_id, t.kind, coalesce(sum(l.amount_minor), 0) AS sum_minor,
    string_agg(l.account || ' ' || l.amount_minor, ', ' ORDER BY l.leg) AS legs
FROM transfers AS t LEFT JOIN legs AS l USING (transfer_id)
GROUP BY transfer_id
HAVING count(l.leg) < 2 OR sum(l.amount_minor) <> 0
    OR count(*) FILTER (WHERE l.account = 'wallet' AND l.user_id <> t.user_id) > 0
ORDER BY transfer_id
"""
_HISTORY = """
SELECT user_id, seq, before_minor, moved_minor, balance_minor
FROM (
    SELECT h.user_id, h.seq, h.balance_minor, coalesce(l.amount_minor, 0) AS moved_minor,
        coalesce(lag(h.balance_minor) OVER (PARTITION BY h.user_id ORDER BY h.seq), 0) AS before_minor
    FROM wallet_history AS h
    LEFT JOIN legs AS l ON l.transfer_id = h.transfer_id AND l.account = 'wallet'
) AS changes
WHERE balance_minor <> before_minor + moved_minor
ORDER BY user_id, seq
"""
_TOTALS = """
SELECT currency, sum(amount_minor) AS sum_minor
FROM legs JOIN transfers USING (transfer_id) GROUP BY currency HAVING sum(amount_minor) <> 0
"""
_COUNTS = "SELECT (SELECT count(*) FROM wallets) AS wallets, (SELECT count(*) FROM legs) AS legs"


def check_ledger(payments: Snapshot, findings: Findings) -> None:
    """Judge 1 and 2."""
    for row in payments.stream(_WALLETS):
        findings.add("1", {"user": row.user_id}, wallet=row.balance_minor, sum_of_legs=row.legs_minor)
    for row in payments.stream(_TRANSFERS):
        about = {"transfer": row.transfer_id, "user": row.user_id}
        if row.order_id:
            about["order"] = row.order_id
        findings.add("1", about, legs=row.legs, sum_of_legs=row.sum_minor)
    for row in payments.stream(_HISTORY):
        findings.add(
            "1",
            {"user": row.user_id},
            wallet_history=f"number {row.seq} ends at {row.balance_minor}",
            ledger=f"{row.before_minor} before it, {row.moved_minor:+} moved",
        )
    for row in payments.rows(_TOTALS):
        findings.add("2", {"currency": row.currency}, sum_of_all_legs=row.sum_minor)
    findings.checked.update(payments.rows(_COUNTS)[0]._asdict())
