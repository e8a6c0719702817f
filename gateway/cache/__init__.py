"""A read-through cache whose loss costs only speed."""

from gateway.cache.floors import Floors
from gateway.cache.memory import MemoryStore
from gateway.cache.readthrough import Fresh, Outcome, Reading, ReadThrough
from gateway.cache.redis_store import RedisStore
from gateway.cache.store import CacheDown, Entry, Key, VersionedStore

__all__ = [
    "CacheDown",
    "Entry",
    "Floors",
    "Fresh",
    "Key",
    "MemoryStore",
    "Outcome",
    "ReadThrough",
    "Reading",
    "RedisStore",
    "VersionedStore",
]
