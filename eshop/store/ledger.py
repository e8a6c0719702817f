"""The ledger: transfers and their legs, only ever inserted."""

from collections.abc import Sequence

from sqlalchemy import BigInteger, SmallInteger, Text, bindparam, insert, select
from sqlalchemy.dialects.postgresql import UUID

from eshop.domain.ledger import LedgerAccount, Transfer
from eshop.store.bulk import array_parameters, array_table
from eshop.store.database import Session
from eshop.store.rows import StatementRow
from eshop.store.schema.payments import PAYMENTS

_transfers = PAYMENTS.tables["transfers"]
_legs = PAYMENTS.tables["legs"]

_TRANSFER_COLUMNS = {
    "transfer_id": UUID,
    "kind": Text,
    "user_id": Text,
    "currency": Text,
    "order_id": UUID,
    "reference": Text,
}
_given_transfers = array_table(**_TRANSFER_COLUMNS)
_ADD_TRANSFERS = insert(_transfers).from_select(
    list(_TRANSFER_COLUMNS),
    select(*(_given_transfers.c[name] for name in _TRANSFER_COLUMNS)),
    include_defaults=False,
)
_LEG_COLUMNS = {
    "transfer_id": UUID,
    "leg": SmallInteger,
    "account": Text,
    "user_id": Text,
    "amount_minor": BigInteger,
}
_given_legs = array_table(**_LEG_COLUMNS)
_ADD_LEGS = insert(_legs).from_select(
    list(_LEG_COLUMNS), select(*(_given_legs.c[name] for name in _LEG_COLUMNS)), include_defaults=False
)
_history = PAYMENTS.tables["wallet_history"]
_STATEMENT = (
    select(
        _history.c.feed_number,
        _history.c.transfer_id,
        _transfers.c.kind,
        _legs.c.amount_minor,
        _history.c.balance_minor,
        _history.c.currency,
        _transfers.c.order_id,
        _transfers.c.reference,
        _history.c.at,
    )
    .join(_transfers, _transfers.c.transfer_id == _history.c.transfer_id)
    .join(_legs, _legs.c.transfer_id == _history.c.transfer_id)
    .where(
        _history.c.user_id == bindparam("user_id"),
        _history.c.feed_number < bindparam("before_feed_number"),
        _legs.c.account == LedgerAccount.WALLET.value,
    )
    .order_by(_history.c.feed_number.desc())
    .limit(bindparam("limit"))
)
_BY_REFERENCE = select(_transfers.c.transfer_id).where(
    _transfers.c.reference == bindparam("reference"), _transfers.c.user_id == bindparam("user_id")
)


class Ledger:
    """Posts transfers. A transfer that was posted before violates a unique key and undoes the transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def post(self, transfers: Sequence[Transfer]) -> None:
        """Insert the transfers with all their legs."""
        if not transfers:
            return
        heads = [
            (t.transfer_id, t.kind.value, t.user_id, t.currency, t.order_id, t.reference) for t in transfers
        ]
        legs = [
            (
                t.transfer_id,
                number,
                leg.account.value,
                t.user_id if leg.account is LedgerAccount.WALLET else None,
                leg.amount_minor,
            )
            for t in transfers
            for number, leg in enumerate(t.legs, start=1)
        ]
        await self._session.run(_ADD_TRANSFERS, **array_parameters(list(_TRANSFER_COLUMNS), heads))
        await self._session.run(_ADD_LEGS, **array_parameters(list(_LEG_COLUMNS), legs))

    async def has_reference(self, user_id: str, reference: str) -> bool:
        """Tell whether a top-up of this user has used the reference. The wallet is locked."""
        return bool(await self._session.run(_BY_REFERENCE, user_id=user_id, reference=reference))

    async def statement(self, user_id: str, before_feed_number: int, limit: int) -> list[StatementRow]:
        """Return the transfers in the user's wallet before a version, newest first, each with its balance."""
        return await self._session.run(
            _STATEMENT, user_id=user_id, before_feed_number=before_feed_number, limit=limit
        )
