"""Actions of operators with their reasons: recorded in the transaction of the effect, never changed."""

from dataclasses import asdict, dataclass

from sqlalchemy import Text, bindparam, cast, insert, select
from sqlalchemy.dialects.postgresql import UUID

from eshop.store.database import Session
from eshop.store.rows import ActionRow
from eshop.store.schema import SHARED

_actions = SHARED.tables["operator_actions"]


@dataclass(frozen=True, slots=True)
class OperatorAction:
    """An action of an operator. No message and no user gets ``reason`` and ``operator``."""

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
    """The record of operators' actions."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def record(self, action: OperatorAction) -> None:
        """Append to the record."""
        await self._session.run(_RECORD, **asdict(action))

    async def on_dead_letter(self, dead_letter_id: str) -> list[ActionRow]:
        """Return the actions on a dead letter, in order."""
        return await self._session.run(_ON_DEAD_LETTER, of_dead_letter=dead_letter_id)
