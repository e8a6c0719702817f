"""The promise of a store of versioned entries, for every implementation.

A conformance suite (`tests/integration/test_cache_stores.py`) runs over each of them.
"""

from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote


class CacheDown(Exception):
    """The store did not answer, or not correctly. The caller loses only speed without it."""


@dataclass(frozen=True, slots=True)
class Key:
    """The name of a user's object, such as ``("orders", user, order_id)``."""

    kind: str
    user_id: str
    entity: str

    def text(self) -> str:
        """Return an unambiguous name: parts are quoted, so that no user id can reach another user's entry."""
        return ":".join(quote(part, safe="") for part in (self.kind, self.user_id, self.entity))


@dataclass(frozen=True, slots=True)
class Entry:
    """A rendered object at a version. ``stored_at`` is in seconds since the epoch, for the age only."""

    version: int
    body: bytes
    stored_at: float


class VersionedStore(Protocol):
    """Keeps the newest known version of each key for a while, or forgets it: both are right."""

    async def get(self, key: Key) -> Entry | None:
        """Return the entry; raise CacheDown."""

    async def put(self, key: Key, entry: Entry, ttl_seconds: int) -> bool:
        """Keep the entry unless an equally new entry is there; tell whether it was kept. Raise CacheDown."""

    async def ping(self) -> None:
        """Raise CacheDown if the store does not answer."""

    async def close(self) -> None:
        """Let go of connections."""
