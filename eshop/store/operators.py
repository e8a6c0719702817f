"""What operators did, and why: recorded in the transaction of its effect, never changed."""

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Text, bindparam, cast, insert, select
from sqlalchemy.dialects.postgresql import UUID

from eshop.store.database import Session
from eshop.store.schema import ORDERS

_actions = ORDERS.tables["operator_actions"]  # the same table in every service's database


@dataclass(frozen=True, slots=True)
class OperatorAction:
    """An operator's deed. ``reason`` and ``operator`` are for operators: no message and no user gets them."""

    action: str
    user_id: str | None
    order_id: str | None
    reason: str
    operator: str
    dead_letter_id: str | None = None


_COLUMNS = {
    "action": Text,
    "user_id": Text,
    "order_id": UUID,
    "reason": Text,
    "operator": Text,
    "dead_letter_id": UUID,
}
_RECORD = insert(_actions).from_select(
    list(_COLUMNS),
    select(*(cast(bindparam(name), type_) for name, type_ in _COLUMNS.items())),
    include_defaults=False,
)
_ON_DEAD_LETTER = (
    select(_actions)
    .where(_actions.c.dead_letter_id == cast(bindparam("of_dead_letter"), UUID))
    .order_by(_actions.c.at)
)


class Operators:
    """The record of what operators did."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def record(self, action: OperatorAction) -> None:
        """Append to the record."""
        await self._session.run(_RECORD, **asdict(action))

    async def on_dead_letter(self, dead_letter_id: str) -> list[Any]:
        """Return what was done to a dead letter, in order."""
        return await self._session.run(_ON_DEAD_LETTER, of_dead_letter=dead_letter_id)
