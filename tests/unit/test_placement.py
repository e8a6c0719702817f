"""Users are placed as Kafka's own clients place them: by murmur2 of the key, as its tests give it."""

import pytest
from aiokafka.partitioner import DefaultPartitioner

from eshop.contracts.services import TOPICS
from eshop.contracts.topics import PARTITIONS
from eshop.relay.placement import partition_of

#: From the tests of Kafka's Java client.
MURMUR2 = {
    "21": -973932308,
    "foobar": -790332482,
    "a-little-bit-long-string": -985981536,
    "a-little-bit-longer-string": -1486304829,
    "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    "abc": 479470107,
}


@pytest.mark.parametrize(("user_id", "murmur2"), MURMUR2.items())
def test_users_are_placed_as_kafkas_own_clients_place_them(user_id: str, murmur2: int) -> None:
    for topic in TOPICS:
        assert partition_of(topic.name, user_id) == (murmur2 & 0x7FFFFFFF) % topic.partitions


def test_users_are_placed_as_the_library_would_over_the_catalogues_partitions() -> None:
    partitions = list(range(PARTITIONS))
    for user_id in [f"user-{number}" for number in range(1_000)] + ["", "ä", "x" * 255]:
        expected = DefaultPartitioner()(user_id.encode(), partitions, partitions)
        assert partition_of(TOPICS[0].name, user_id) == expected
