"""Payments: one row per order, so that no order is decided twice."""

from collections.abc import Iterable

from sqlalchemy import ARRAY, BigInteger, Text, any_, bindparam, cast, select
from sqlalchemy.dialects.postgresql import UUID, insert

from eshop.domain.payment import Payment, PaymentStatus
from eshop.store.bulk import array_parameters, array_table
from eshop.store.database import Session
from eshop.store.schema.payments import PAYMENTS

_payments = PAYMENTS.tables["payments"]
_GET = select(_payments).where(_payments.c.order_id == any_(cast(bindparam("order_ids"), ARRAY(UUID))))

_COLUMNS = {
    "order_id": UUID,
    "user_id": Text,
    "status": Text,
    "amount_minor": BigInteger,
    "currency": Text,
    "reason": Text,
    "wallet_version": BigInteger,
    "balance_after_minor": BigInteger,
}
_given = array_table(**_COLUMNS)
_insert = insert(_payments).from_select(
    list(_COLUMNS), select(*(_given.c[name] for name in _COLUMNS)), include_defaults=False
)
_SAVE = _insert.on_conflict_do_update(
    index_elements=["order_id"],
    set_={
        name: _insert.excluded[name] for name in ("status", "reason", "wallet_version", "balance_after_minor")
    },
)


class Payments:
    """The payments table. Writers hold the lock of the wallets concerned."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def get(self, order_ids: Iterable[str]) -> dict[str, Payment]:
        """Return the decided payments by order id."""
        found = await self._session.run(_GET, order_ids=sorted(set(order_ids)))
        return {
            row.order_id: Payment(
                row.order_id,
                row.user_id,
                PaymentStatus(row.status),
                row.amount_minor,
                row.currency,
                row.reason,
                row.wallet_version,
                row.balance_after_minor,
            )
            for row in found
        }

    async def save(self, payments: Iterable[Payment]) -> None:
        """Insert new payments, and update existing payments to their new status."""
        given = [
            (
                p.order_id,
                p.user_id,
                p.status.value,
                p.amount_minor,
                p.currency,
                p.reason,
                p.wallet_version,
                p.balance_after_minor,
            )
            for p in payments
        ]
        if given:
            await self._session.run(_SAVE, **array_parameters(list(_COLUMNS), given))
