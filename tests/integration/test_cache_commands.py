"""The cache speaks only what Garnet and Valkey both have: seen at the server, which counts commands."""

import asyncio

from redis import asyncio as aioredis

from eshop.cluster.embedded import EmbeddedCluster
from gateway.cache import Entry, Key, RedisStore

#: All of them on Garnet's own list. No HELLO, because the second version of the protocol needs none; no EVAL.
KNOWN = {"ping", "get", "set", "watch", "unwatch", "multi", "exec", "discard", "client|setinfo"}
#: The test's own.
OURS = {"config|resetstat", "info"}


async def test_only_commands_that_garnet_has_are_sent(cluster: EmbeddedCluster) -> None:
    watcher = aioredis.Redis.from_url(cluster.redis_url, protocol=2)
    store = RedisStore(cluster.redis_url, prefix="commands")
    key = Key("order", "ann", "1")
    await watcher.config_resetstat()
    await store.ping()
    await asyncio.gather(*(store.put(key, Entry(version, b"{}", 1.0), 60) for version in range(1, 9)))
    await store.get(key)
    counted = await watcher.info("commandstats")
    await store.close()
    await watcher.aclose()
    sent = {name.removeprefix("cmdstat_") for name in counted} - OURS
    assert {"ping", "get", "set", "watch", "multi", "exec"} <= sent <= KNOWN
