"""Requests by idempotency key with their results, stored in the transaction of the effect.

See docs/adr/0007-idempotency-keys.md.
"""

from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import LargeBinary, Text, bindparam, cast, insert, select
from sqlalchemy.dialects.postgresql import JSONB

from eshop.store.database import Session
from eshop.store.schema import SHARED

_requests = SHARED.tables["requests"]
_key = ("user_id", "route", "idempotency_key")
_GET = select(_requests).where(*(_requests.c[name] == bindparam(name) for name in _key))
_KEEP = insert(_requests).from_select(
    [*_key, "fingerprint", "answer"],
    select(
        *(cast(bindparam(name), Text) for name in _key),
        cast(bindparam("fingerprint"), LargeBinary),
        cast(bindparam("answer"), JSONB),
    ),
    include_defaults=False,
)


@dataclass(frozen=True, slots=True)
class RequestKey:
    """The user, the kind and the key of a request."""

    user_id: str
    route: str
    idempotency_key: str


@dataclass(frozen=True, slots=True)
class Answered:
    """A request that has a stored result."""

    fingerprint: bytes
    answer: dict[str, Any]


class Requests:
    """The answers given. Readers and writers hold the user's lock, so the same key is handled once."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def get(self, key: RequestKey) -> Answered | None:
        """Return the stored result of the key."""
        found = await self._session.run(
            _GET, user_id=key.user_id, route=key.route, idempotency_key=key.idempotency_key
        )
        return Answered(bytes(found[0].fingerprint), found[0].answer) if found else None

    async def keep(self, key: RequestKey, fingerprint: bytes, answer: dict[str, Any]) -> None:
        """Store the answer given under the key."""
        await self._session.run(
            _KEEP,
            user_id=key.user_id,
            route=key.route,
            idempotency_key=key.idempotency_key,
            fingerprint=fingerprint,
            answer=orjson.dumps(answer).decode(),
        )
