"""Bring the topics to the broker before any worker starts: Faust ignores a missing one for ever."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from eshop.contracts.topics import CATALOGUE

VISIBLE_SECONDS_MAX = 15.0
POLL_SECONDS = 0.05


class TopicMismatch(Exception):
    """A topic exists with other partitions than the catalogue says, or with fewer copies than asked for."""


@dataclass(frozen=True, slots=True)
class Copies:
    """How many brokers keep each message, and how many must have it before it counts as sent."""

    replication: int = 1
    min_in_sync: int = 1


ONE_COPY = Copies()


async def ensure_topics(kafka: str, prefix: str = "", copies: Copies = ONE_COPY) -> None:
    """Create every topic of the catalogue that is missing, and return when the broker shows all of them.

    Harmless to repeat, and for several processes to do at once. Raises TopicMismatch where partitions differ:
    users would be in other partitions than the messages before; and where there are fewer copies: a promise
    would be broken without a word. Raises aiokafka's KafkaError on faults.
    """
    await ensure(
        kafka, [new_topic(prefix + topic.name, topic.partitions, topic.config, copies) for topic in CATALOGUE]
    )


def new_topic(name: str, partitions: int, config: Mapping[str, str], copies: Copies) -> NewTopic:
    """Describe a topic as it must be on the broker."""
    config = {**config, "min.insync.replicas": str(copies.min_in_sync)}
    return NewTopic(name, partitions, copies.replication, topic_configs=config)


async def ensure(kafka: str, topics: Sequence[NewTopic]) -> None:
    """Do the same for any topics."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka, client_id="eshop-topics")
    await admin.start()
    try:
        await _create_missing(admin, topics)
        await asyncio.wait_for(_all_visible(admin, topics), VISIBLE_SECONDS_MAX)
    finally:
        await admin.close()


async def _create_missing(admin: AIOKafkaAdminClient, topics: Sequence[NewTopic]) -> None:
    there = set(await admin.list_topics())
    missing = [topic for topic in topics if topic.name not in there]
    if not missing:
        return
    answer = await admin.create_topics(missing)
    for _name, code, *_message in answer.topic_errors:
        if code and code != TopicAlreadyExistsError.errno:
            raise for_code(code)(f"creating {_name}: {_message}")


async def _all_visible(admin: AIOKafkaAdminClient, topics: Sequence[NewTopic]) -> None:
    wanted = {topic.name: topic for topic in topics}
    found: list[dict[str, Any]] = []
    while len(found) < len(wanted):
        described = await admin.describe_topics(list(wanted))
        found = [topic for topic in described if topic["error_code"] == 0]
        if len(found) < len(wanted):
            await asyncio.sleep(POLL_SECONDS)
    for topic in found:
        name, count = topic["topic"], len(topic["partitions"])
        partitions, copies = wanted[name].num_partitions, wanted[name].replication_factor
        if count != partitions:
            raise TopicMismatch(f"{name} has {count} partitions, the catalogue says {partitions}")
        fewest = min(len(partition["replicas"]) for partition in topic["partitions"])
        if fewest < copies:
            raise TopicMismatch(f"{name} has {fewest} copies, ESHOP_TOPIC_REPLICATION says {copies}")
