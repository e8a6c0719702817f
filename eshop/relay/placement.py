"""Placement of a user's messages: a partition by the catalogue's number, never by the broker's number."""

from functools import lru_cache

from aiokafka.partitioner import murmur2

from eshop.contracts.services import TOPICS
from eshop.contracts.topics import PARTITIONS

_PARTITIONS = {topic.name: topic.partitions for topic in TOPICS}


@lru_cache(maxsize=65_536)  # the hash is in Python, and costs more than all else about a row
def partition_of(topic: str, user_id: str) -> int:
    """Return the partition of a user's messages in a topic of the catalogue: Kafka's own hash of the key."""
    return int(murmur2(user_id.encode()) & 0x7FFFFFFF) % _PARTITIONS.get(topic, PARTITIONS)
