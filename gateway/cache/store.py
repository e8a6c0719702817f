"""What a store of versioned entries promises, whatever keeps them.

One conformance suite (`tests/integration/test_cache_stores.py`) holds every implementation to it.
"""

from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote


class CacheDown(Exception):
    """The store did not answer, or not as it should. Nothing is lost by going on without it."""


@dataclass(frozen=True, slots=True)
class Key:
    """One user's one thing, such as ``("order", user, order_id)``."""

    kind: str
    user_id: str
    entity: str

    def text(self) -> str:
        """Return an unambiguous name: parts are quoted, so that no user id can reach another's entry."""
        return ":".join(quote(part, safe="") for part in (self.kind, self.user_id, self.entity))


@dataclass(frozen=True, slots=True)
class Entry:
    """A rendered thing at one version. ``stored_at`` is in seconds since the epoch, for its age only."""

    version: int
    body: bytes
    stored_at: float


class VersionedStore(Protocol):
    """Keeps the newest known version of each key for a while, or forgets it: both are right."""

    async def get(self, key: Key) -> Entry | None:
        """Return what is kept; raise CacheDown."""

    async def put(self, key: Key, entry: Entry, ttl_seconds: int) -> bool:
        """Keep the entry unless one as new is kept; say whether it was kept. Raise CacheDown."""

    async def ping(self) -> None:
        """Raise CacheDown where the store does not answer."""

    async def close(self) -> None:
        """Let go of connections."""
