"""The limits of the wire against those that the domain, the audit and the tables keep for themselves."""

import re
from typing import get_args

from eshop.audit import outcomes
from eshop.contracts import limits, statuses
from eshop.domain import money
from eshop.domain.order import OrderStatus
from tests.support.worker_process import ROOT

MIGRATIONS = "\n".join(
    path.read_text() for path in (ROOT / "eshop/store/migrations/orders/versions").glob("*.py")
)


def test_domain_has_the_same_amounts_and_currencies() -> None:
    assert money.AMOUNT_MINOR_MAX == limits.AMOUNT_MINOR_MAX
    money.assert_currency("USD")
    assert re.fullmatch(limits.CURRENCY_PATTERN, "USD")


def test_domain_audit_and_tables_have_the_same_statuses() -> None:
    assert {status.value for status in OrderStatus} == set(statuses.STATUSES)
    assert set(outcomes._MAY_PAY) <= set(statuses.STATUSES)
    (checked,) = re.findall(r"CHECK \(status IN \(([^)]+)\)\)", MIGRATIONS)
    assert set(re.findall(r"\w+", checked)) == set(statuses.STATUSES)


def test_reasons_that_can_be_requested_are_reasons() -> None:
    assert set(get_args(statuses.RequestedReason)) <= set(get_args(statuses.Reason))
