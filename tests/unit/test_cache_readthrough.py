"""Reading through: newer only, never below a floor, and never dependent on the store."""

import asyncio
from collections import Counter
from itertools import count

import pytest

from gateway.cache import CacheDown, Entry, Floors, Fresh, Key, MemoryStore, Outcome, ReadThrough, readthrough

KEY = Key("order", "ann", "1")


class Database:
    """The truth, which counts how often it is asked."""

    def __init__(self, version: int = 1) -> None:
        self.version = version
        self.asked = 0

    async def load(self) -> Fresh:
        self.asked += 1
        return Fresh(self.version, b"v%d" % self.version, 60)


class SlowStore(MemoryStore):
    async def get(self, key: Key) -> Entry | None:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


def reading(store: MemoryStore, **options: object) -> tuple[ReadThrough, Counter[Outcome]]:
    seen: Counter[Outcome] = Counter()

    def tally(outcome: Outcome) -> None:
        seen[outcome] += 1

    return ReadThrough(store, tally, **options), seen  # type: ignore[arg-type]


async def test_the_second_reader_gets_the_entry_and_its_age() -> None:
    cache, seen = reading(MemoryStore())
    database = Database()
    first = await cache.read(KEY, database.load)
    second = await cache.read(KEY, database.load)
    assert (first.body, first.age_seconds) == (b"v1", None)
    assert (second.body, second.age_seconds) == (b"v1", 0)
    assert database.asked == 1
    assert seen == {Outcome.MISS: 1, Outcome.HIT: 1}


async def test_nobody_is_given_less_than_was_shown_to_them() -> None:
    cache, seen = reading(MemoryStore())
    database = Database()
    await cache.read(KEY, database.load)
    database.version = 2
    cache.floors.show(KEY, 2)
    assert (await cache.read(KEY, database.load)).body == b"v2"
    assert seen[Outcome.BELOW_FLOOR] == 1
    assert (await cache.read(KEY, database.load)).age_seconds == 0


async def test_what_one_gateway_has_shown_is_no_floor_at_another() -> None:
    store = MemoryStore()
    (ours, _), (theirs, _) = reading(store), reading(store)
    database = Database()
    await ours.read(KEY, database.load)
    ours.floors.show(KEY, 2)
    assert (await theirs.read(KEY, database.load)).version == 1


async def test_a_floor_the_reader_brings_counts_at_any_gateway() -> None:
    store = MemoryStore()
    (ours, _), (theirs, _) = reading(store), reading(store)
    database = Database()
    await ours.read(KEY, database.load)
    database.version = 3
    assert (await theirs.read(KEY, database.load, at_least=3)).version == 3


async def test_a_floor_that_rises_while_the_database_is_asked_makes_it_ask_again() -> None:
    cache, _ = reading(MemoryStore())
    versions = count(1)

    async def load() -> Fresh:
        version = next(versions)
        cache.floors.show(KEY, 2)
        return Fresh(version, b"v%d" % version, 60)

    assert (await cache.read(KEY, load)).version == 2


async def test_a_forgotten_floor_means_asking_the_database() -> None:
    cache, seen = reading(MemoryStore(), floors=Floors(60, floors_max=1))
    database = Database()
    other = Key("order", "bob", "2")
    await cache.read(KEY, database.load)
    cache.floors.show(other, 1)
    assert cache.floors.of(KEY) is None
    assert (await cache.read(KEY, database.load)).age_seconds is None
    assert seen[Outcome.BELOW_FLOOR] == 1


async def test_an_older_one_never_replaces_a_newer_one() -> None:
    store = MemoryStore()
    cache, _ = reading(store)
    await cache.put(KEY, Fresh(5, b"v5", 60))
    await cache.put(KEY, Fresh(4, b"v4", 60))
    kept = await store.get(KEY)
    assert kept is not None
    assert kept.body == b"v5"


async def test_a_store_that_is_down_is_bypassed_and_then_not_even_asked() -> None:
    store = MemoryStore()
    store.down = True
    cache, seen = reading(store)
    database = Database()
    for _ in range(10):
        assert (await cache.read(KEY, database.load)).body == b"v1"
    assert seen == {Outcome.BYPASS: 10}
    store.down = False
    await cache.read(KEY, database.load)
    assert seen == {Outcome.BYPASS: 11}, "the breaker is open: nobody tries"


async def test_a_store_that_is_back_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readthrough, "BREAKER_OPEN_SECONDS", 0.0)
    store = MemoryStore()
    store.down = True
    cache, seen = reading(store)
    database = Database()
    for _ in range(5):
        await cache.read(KEY, database.load)
    store.down = False
    await cache.read(KEY, database.load)
    await cache.read(KEY, database.load)
    assert seen[Outcome.HIT] == 1


async def test_a_slow_store_costs_no_more_than_its_bound() -> None:
    cache, seen = reading(SlowStore(), call_seconds_max=0.02)
    database = Database()
    async with asyncio.timeout(1):
        for _ in range(10):
            assert (await cache.read(KEY, database.load)).body == b"v1"
    assert seen == {Outcome.BYPASS: 10}


async def test_what_the_database_says_goes_to_the_caller() -> None:
    cache, _ = reading(MemoryStore())

    async def missing() -> Fresh:
        raise LookupError

    with pytest.raises(LookupError):
        await cache.read(KEY, missing)


async def test_a_fake_that_is_down_says_so() -> None:
    store = MemoryStore()
    store.down = True
    with pytest.raises(CacheDown):
        await store.ping()
