"""One row per user: the lock of all transactions on the user's orders, and the counter of the feed."""

from collections.abc import Iterable, Mapping

from sqlalchemy import BigInteger, Text, any_, bindparam, cast, func, select, update
from sqlalchemy.dialects.postgresql import ARRAY, insert

from eshop.store.bulk import array_parameters, array_table
from eshop.store.database import Session
from eshop.store.schema.orders import ORDERS

_users = ORDERS.tables["users"]
_ids = cast(bindparam("user_ids"), ARRAY(Text))
_ADD = (
    insert(_users)
    .from_select(["user_id"], select(func.unnest(_ids).label("user_id")))
    .on_conflict_do_nothing()
)
_LOCK = select(_users).where(_users.c.user_id == any_(_ids)).order_by(_users.c.user_id).with_for_update()
_free = select(_users.c.user_id).where(_users.c.user_id == any_(_ids)).with_for_update(skip_locked=True).cte()
_LOCKED = select(_users.c.user_id).where(
    _users.c.user_id == any_(_ids), _users.c.user_id.not_in(select(_free.c.user_id))
)
_given = array_table(user_id=Text, feed_number=BigInteger)
_SAVE = update(_users).where(_users.c.user_id == _given.c.user_id).values(feed_number=_given.c.feed_number)


class Users:
    """The users' rows, in id order always."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def lock(self, user_ids: Iterable[str], *, add_missing: bool = True) -> dict[str, int]:
        """Lock the users' rows, by default inserting missing ones, and return the last feed numbers."""
        ids = sorted(set(user_ids))
        if add_missing:
            await self._session.run(_ADD, user_ids=ids)
        locked = await self._session.run(_LOCK, user_ids=ids)
        return {row.user_id: row.feed_number for row in locked}

    async def locked(self, user_ids: Iterable[str]) -> set[str]:
        """Return the users whose rows another transaction has locked at this moment."""
        found = await self._session.run(_LOCKED, user_ids=sorted(set(user_ids)))
        return {row.user_id for row in found}

    async def save(self, feed_numbers: Mapping[str, int]) -> None:
        """Store the last feed numbers. The rows are locked."""
        await self._session.run(
            _SAVE, **array_parameters(("user_id", "feed_number"), list(feed_numbers.items()))
        )
