"""A user's feed, read from the history that the same transactions wrote."""

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from sqlalchemy import ARRAY, Select, Table, Text, any_, bindparam, cast, select

from eshop.store.database import Session
from eshop.store.rows import FeedRow, OrderChange, WalletEntry
from eshop.store.schema.orders import ORDERS
from eshop.store.schema.payments import PAYMENTS

R_co = TypeVar("R_co", bound=FeedRow, covariant=True)


def _read(history: Table) -> Select[Any]:
    return (
        select(history)
        .where(
            history.c.user_id == bindparam("user_id"), history.c.feed_number > bindparam("after_feed_number")
        )
        .order_by(history.c.feed_number)
        .limit(bindparam("limit"))
    )


def _heads(users: Table) -> Select[Any]:
    ids = cast(bindparam("user_ids"), ARRAY(Text))
    return select(users.c.user_id, users.c.feed_number).where(users.c.user_id == any_(ids))


class Feed(Generic[R_co]):
    """Reads one service's feed."""

    def __init__(self, session: Session, read: Select[Any], heads: Select[Any]) -> None:
        self._session = session
        self._read = read
        self._heads = heads

    async def read(self, user_id: str, after_feed_number: int, limit: int) -> list[R_co]:
        """Return the user's changes after a number, in order, as rows of the history."""
        return await self._session.run(
            self._read, user_id=user_id, after_feed_number=after_feed_number, limit=limit
        )

    async def heads(self, user_ids: Sequence[str]) -> list[int]:
        """Return each user's last number, in order; 0 for a user without changes."""
        found = await self._session.run(self._heads, user_ids=sorted(set(user_ids)))
        heads = {row.user_id: row.feed_number for row in found}
        return [heads.get(user_id, 0) for user_id in user_ids]


def feed_statements(history: Table, users: Table) -> tuple[Select[Any], Select[Any]]:
    """Return the statements of a service's `Feed`: for its table of changes, and of users."""
    return _read(history), _heads(users)


_ORDERS = feed_statements(ORDERS.tables["order_history"], ORDERS.tables["users"])
_PAYMENTS = feed_statements(PAYMENTS.tables["wallet_history"], PAYMENTS.tables["wallets"])


def orders_feed(session: Session) -> Feed[OrderChange]:
    """Return the feed of the users' orders."""
    return Feed(session, *_ORDERS)


def wallets_feed(session: Session) -> Feed[WalletEntry]:
    """Return the feed of the users' wallets."""
    return Feed(session, *_PAYMENTS)
