"""One suite over both stores of versioned entries: the fake, and a real server."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis import asyncio as aioredis
from redis.asyncio.connection import Connection

from eshop.cluster.embedded import EmbeddedCluster
from gateway.cache import CacheDown, Entry, Key, MemoryStore, RedisStore, VersionedStore


@pytest.fixture(params=["fake", "real"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[VersionedStore]:
    made: VersionedStore
    if request.param == "fake":
        made = MemoryStore()
    else:
        cluster: EmbeddedCluster = request.getfixturevalue("cluster")
        made = RedisStore(cluster.redis_url, prefix=request.node.name)
    yield made
    await made.close()


def key(user_id: str = "ann", entity: str = "1") -> Key:
    return Key("order", user_id, entity)


def entry(version: int) -> Entry:
    return Entry(version, b'{"text": "a b \xc3\xbc \\u0000"} %d' % version, 1234.5)


async def test_what_is_put_comes_back(store: VersionedStore) -> None:
    await store.ping()
    assert await store.get(key()) is None
    assert await store.put(key(), entry(1), 60)
    assert await store.get(key()) == entry(1)


async def test_only_a_newer_one_replaces(store: VersionedStore) -> None:
    assert await store.put(key(), entry(2), 60)
    assert not await store.put(key(), entry(1), 60)
    assert not await store.put(key(), entry(2), 60)
    assert await store.put(key(), entry(3), 60)
    assert await store.get(key()) == entry(3)


async def test_keys_do_not_meet(store: VersionedStore) -> None:
    keys = [key("a"), key("a:1"), key("a", "1:1"), key("a%3A1"), key("A"), key("*"), key("a\\{}[]~!")]
    for number, each in enumerate(keys, 1):
        assert await store.put(each, entry(number), 60)
    assert [kept.version for each in keys if (kept := await store.get(each))] == list(range(1, len(keys) + 1))


async def test_writers_at_once_leave_the_newest(store: VersionedStore) -> None:
    await asyncio.gather(*(store.put(key(), entry(version), 60) for version in range(1, 21)))
    await store.put(key(), entry(20), 60)
    assert await store.get(key()) == entry(20)


async def test_an_entry_runs_out(cluster: EmbeddedCluster) -> None:
    store = RedisStore(cluster.redis_url, prefix="ttl")
    await store.put(key(), entry(1), 60)
    raw = aioredis.Redis.from_url(cluster.redis_url)
    (name,) = [name async for name in raw.scan_iter(match="eshop1:ttl:*")]
    assert 0 < await raw.ttl(name) <= 60
    await raw.aclose()
    await store.close()


async def test_what_cannot_be_read_counts_as_nothing_and_is_replaced(cluster: EmbeddedCluster) -> None:
    store = RedisStore(cluster.redis_url, prefix="junk")
    raw = aioredis.Redis.from_url(cluster.redis_url)
    await raw.set("eshop1:junk:" + key().text(), b"junk")
    assert await store.get(key()) is None
    assert await store.put(key(), entry(1), 60)
    assert await store.get(key()) == entry(1)
    await raw.aclose()
    await store.close()


async def test_a_server_that_is_away_is_said_to_be_down(unused_tcp_port: int) -> None:
    store = RedisStore(f"redis://127.0.0.1:{unused_tcp_port}/0")
    for call in (store.get(key()), store.put(key(), entry(1), 60), store.ping()):
        with pytest.raises(CacheDown):
            await call
    await store.close()


async def test_a_call_cut_short_breaks_no_later_one(cluster: EmbeddedCluster) -> None:
    store = RedisStore(cluster.redis_url, prefix="cut")
    await store.put(key(), entry(1), 60)
    for _ in range(50):
        cut = asyncio.create_task(store.get(key("other")))
        await asyncio.sleep(0)
        cut.cancel()
        await asyncio.gather(cut, return_exceptions=True)
        assert await store.get(key()) == entry(1)
    await store.close()


async def test_a_connection_that_closes_while_it_is_used_counts_as_down(
    cluster: EmbeddedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen when Valkey was killed: a put raised uvloop's RuntimeError, and a paid top-up answered 500."""

    async def write_to_closed_transport(*_: object, **__: object) -> None:
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

    store = RedisStore(cluster.redis_url, prefix="closed")
    monkeypatch.setattr(Connection, "send_packed_command", write_to_closed_transport)
    for call in (store.get(key()), store.put(key(), entry(1), 60), store.ping()):
        with pytest.raises(CacheDown):
            await call
    await store.close()
