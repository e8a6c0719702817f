"""Entries in a server with Redis' protocol: Garnet, Valkey or Redis. No Lua: Garnet has it off."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from redis import asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import WatchError

from gateway.cache.store import CacheDown, Entry, Key

#: The version of keys: another format of bodies gets another number, so that old and new gateways can run
#: side by side.
_FORMAT = "eshop1"
CONNECTIONS_MAX = 64
#: A socket that is silent for longer is dropped. Callers bound the whole call besides.
SOCKET_SECONDS = 0.5
_PUT_TRIES_MAX = 3


class RedisStore:
    """Keeps ``version stored_at body`` per key, written by WATCH/MULTI so that only newer replaces older."""

    def __init__(self, url: str, prefix: str = "") -> None:
        self._prefix = f"{_FORMAT}:{prefix}:"
        pool = aioredis.BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS_MAX,
            timeout=SOCKET_SECONDS,
            protocol=2,
            socket_timeout=SOCKET_SECONDS,
            socket_connect_timeout=SOCKET_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        self._redis = aioredis.Redis.from_pool(pool)

    async def get(self, key: Key) -> Entry | None:
        """Return the entry, or None; an unreadable entry counts as missing."""
        with _failing_as_cache_down():
            return _parsed(await self._redis.get(self._name(key)))

    async def put(self, key: Key, entry: Entry, ttl_seconds: int) -> bool:
        """Keep the entry if it is newer; give up, which is always right, if others keep writing the key."""
        for _ in range(_PUT_TRIES_MAX):
            with _failing_as_cache_down(), suppress(WatchError):
                return await self._try_put(self._name(key), entry, ttl_seconds)
        return False

    async def ping(self) -> None:
        """Ask for a sign of life."""
        with _failing_as_cache_down():
            await self._redis.ping()

    async def close(self) -> None:
        """Close every connection."""
        await self._redis.aclose()

    async def _try_put(self, name: str, entry: Entry, ttl_seconds: int) -> bool:
        async with self._redis.pipeline(transaction=True) as pipe:
            await pipe.watch(name)
            kept = _parsed(await pipe.get(name))
            if kept is not None and kept.version >= entry.version:
                return False
            pipe.multi()  # type: ignore[no-untyped-call]
            pipe.set(name, b"%d %.3f %b" % (entry.version, entry.stored_at, entry.body), ex=ttl_seconds)
            await pipe.execute()
            return True

    def _name(self, key: Key) -> str:
        return self._prefix + key.text()


@contextmanager
def _failing_as_cache_down() -> Iterator[None]:
    """Raise CacheDown for every failure, also for one that the client library does not translate.

    For a connection that closes while it is being used, uvloop raises RuntimeError. The cache is optional:
    none of its failures may fail a request.
    """
    try:
        yield
    except Exception as error:
        raise CacheDown(type(error).__name__) from error


def _parsed(value: bytes | str | None) -> Entry | None:
    if not isinstance(value, bytes):
        return None
    try:
        version, stored_at, body = value.split(b" ", 2)
        return Entry(int(version), body, float(stored_at))
    except ValueError:
        return None
