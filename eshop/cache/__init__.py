"""A read-through cache whose loss costs only speed."""

from eshop.cache.floors import Floors
from eshop.cache.memory import MemoryStore
from eshop.cache.readthrough import Fresh, Outcome, Reading, ReadThrough
from eshop.cache.redis_store import RedisStore
from eshop.cache.store import CacheDown, Entry, Key, VersionedStore

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
