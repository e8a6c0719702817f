"""Wallets: one row per user, the lock of all transactions on the user's money; and their history."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter

from sqlalchemy import ARRAY, BigInteger, Boolean, Text, any_, bindparam, cast, func, insert, select, update
from sqlalchemy.dialects.postgresql import UUID
from sqlalchemy.dialects.postgresql import insert as insert_or_ignore

from eshop.domain.wallet import Wallet
from eshop.store.bulk import array_parameters, array_table
from eshop.store.database import Session
from eshop.store.schema.payments import PAYMENTS

_wallets = PAYMENTS.tables["wallets"]
_history = PAYMENTS.tables["wallet_history"]
_ids = cast(bindparam("user_ids"), ARRAY(Text))
_ADD = (
    insert_or_ignore(_wallets)
    .from_select(["user_id"], select(func.unnest(_ids).label("user_id")))
    .on_conflict_do_nothing()
)
_GET = select(_wallets).where(_wallets.c.user_id == any_(_ids))
_LOCK = _GET.order_by(_wallets.c.user_id).with_for_update()

#: In the order of a Wallet's fields; its version is the user's feed number.
_COLUMNS = {
    "user_id": Text,
    "feed_number": BigInteger,
    "balance_minor": BigInteger,
    "currency": Text,
    "topped_up_minor": BigInteger,
    "is_closed": Boolean,
    "is_frozen": Boolean,
}
_values = attrgetter(*(field.name for field in fields(Wallet)))  # `astuple` copies deeply
_given = array_table(**_COLUMNS)
_SAVE = (
    update(_wallets)
    .where(_wallets.c.user_id == _given.c.user_id)
    .values({name: _given.c[name] for name in _COLUMNS if name != "user_id"})
)

_HISTORY_COLUMNS = {
    "user_id": Text,
    "feed_number": BigInteger,
    "balance_minor": BigInteger,
    "currency": Text,
    "transfer_id": UUID,
}
_entries = array_table(**_HISTORY_COLUMNS)
_RECORD = insert(_history).from_select(
    list(_HISTORY_COLUMNS), select(*(_entries.c[name] for name in _HISTORY_COLUMNS)), include_defaults=False
)


@dataclass(frozen=True, slots=True)
class WalletChange:
    """A wallet right after a change, and the transfer that changed it, if there was one."""

    wallet: Wallet
    transfer_id: str | None


class Wallets:
    """The wallets. A user without an account gets a row at the first lock."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def get(self, user_id: str) -> Wallet:
        """Return the user's wallet without locking it."""
        found = await self._session.run(_GET, user_ids=[user_id])
        return next((_wallet(row) for row in found), Wallet(user_id))

    async def lock(self, user_ids: Iterable[str], *, add_missing: bool = True) -> dict[str, Wallet]:
        """Lock the users' wallets in id order, by default inserting missing rows, and return them."""
        ids = sorted(set(user_ids))
        if add_missing:
            await self._session.run(_ADD, user_ids=ids)
        return {row.user_id: _wallet(row) for row in await self._session.run(_LOCK, user_ids=ids)}

    async def save(self, changes: Sequence[WalletChange]) -> None:
        """Store the last states of the changes, and all changes in the history. The wallets are locked."""
        if not changes:
            return
        last = {change.wallet.user_id: change.wallet for change in changes}
        await self._session.run(
            _SAVE, **array_parameters(list(_COLUMNS), [_values(wallet) for wallet in last.values()])
        )
        given = [
            (
                change.wallet.user_id,
                change.wallet.version,
                change.wallet.balance_minor,
                change.wallet.currency,
                change.transfer_id,
            )
            for change in changes
        ]
        await self._session.run(_RECORD, **array_parameters(list(_HISTORY_COLUMNS), given))


def _wallet(row: object) -> Wallet:
    return Wallet(*(getattr(row, name) for name in _COLUMNS))
