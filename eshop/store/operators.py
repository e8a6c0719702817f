"""What operators did, and why: recorded in the transaction of its effect, never changed."""

from dataclasses import asdict, dataclass

from sqlalchemy import Text, bindparam, cast, insert, select
from sqlalchemy.dialects.postgresql import UUID

from eshop.store.database import Session
from eshop.store.schema import ORDERS

_actions = ORDERS.tables["operator_actions"]  # the same table in every service's database


@dataclass(frozen=True, slots=True)
class OperatorAction:
    """An operator's deed. ``reason`` and ``operator`` are for people, and leave this database nowhere."""

    action: str
    user_id: str
    order_id: str | None
    reason: str
    operator: str


_COLUMNS = {"action": Text, "user_id": Text, "order_id": UUID, "reason": Text, "operator": Text}
_RECORD = insert(_actions).from_select(
    list(_COLUMNS),
    select(*(cast(bindparam(name), type_) for name, type_ in _COLUMNS.items())),
    include_defaults=False,
)


class Operators:
    """The record of what operators did."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def record(self, action: OperatorAction) -> None:
        """Append to the record."""
        await self._session.run(_RECORD, **asdict(action))
