"""The relay's lease: one active relay per service, by the database's clock, with a fencing token.

See docs/adr/0004-relay-and-lease.md.
"""

from sqlalchemy import BigInteger, Text, bindparam, cast, func, text, update

from eshop.store.database import Session
from eshop.store.schema import SHARED

_lease = SHARED.tables["relay_lease"]
#: Not now(): now() is the begin of the transaction.
_clock = func.clock_timestamp()
_until = _clock + func.make_interval(0, 0, 0, 0, 0, 0, bindparam("seconds"))
_TAKE = (
    update(_lease)
    .where(_lease.c.expires_at < _clock)
    .values(holder=cast(bindparam("holder_name"), Text), token=_lease.c.token + 1, expires_at=_until)
    .returning(_lease.c.token)
)
_mine = _lease.c.token == cast(bindparam("held"), BigInteger)
_RENEW = update(_lease).where(_mine).values(expires_at=_until).returning(_lease.c.token)
_RELEASE = update(_lease).where(_mine).values(expires_at=text("'-infinity'"))


async def take_lease(session: Session, holder: str, seconds: float) -> int | None:
    """Take the lease if it is free; return its new token, or None."""
    taken = await session.run(_TAKE, holder_name=holder, seconds=seconds)
    return taken[0].token if taken else None


async def renew_lease(session: Session, token: int, seconds: float) -> bool:
    """Hold the lease for ``seconds`` from now; return False if it was taken meanwhile."""
    return bool(await session.run(_RENEW, held=token, seconds=seconds))


async def release_lease(session: Session, token: int) -> None:
    """Release the lease at once."""
    await session.run(_RELEASE, held=token)
