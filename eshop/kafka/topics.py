"""Creates topics before any worker starts: Faust ignores a missing topic without an end."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from eshop.contracts.services import TOPICS
from eshop.contracts.topics import Topic

logger = logging.getLogger(__name__)

VISIBLE_SECONDS_MAX = 15.0
POLL_SECONDS = 0.05


class TopicMismatch(Exception):
    """A topic has fewer partitions than in the catalogue, or fewer copies than in the settings."""


@dataclass(frozen=True, slots=True)
class Copies:
    """The number of copies of each message, and of copies that must exist before a message counts as sent."""

    replication: int = 1
    min_in_sync: int = 1


ONE_COPY = Copies()


async def ensure_topics(
    kafka: str, prefix: str = "", copies: Copies = ONE_COPY, topics: Sequence[Topic] = TOPICS
) -> None:
    """Create every missing topic of the catalogue, and return after the broker shows all of them.

    Safe to repeat, and for several processes at once. A topic with more partitions than in the catalogue is
    left as it is, with a warning: messages are placed by the catalogue's number. Raises TopicMismatch if
    there are fewer partitions (users' messages would change their partition) or fewer copies (a promise would
    be broken silently). Raises aiokafka's KafkaError on faults, and TimeoutError if the broker does not show
    a topic.
    """
    await ensure(
        kafka, [new_topic(prefix + topic.name, topic.partitions, topic.config, copies) for topic in topics]
    )


def new_topic(name: str, partitions: int, config: Mapping[str, str], copies: Copies) -> NewTopic:
    """Describe a topic with its properties on the broker."""
    config = {**config, "min.insync.replicas": str(copies.min_in_sync)}
    return NewTopic(name, partitions, copies.replication, topic_configs=config)


async def ensure(kafka: str, topics: Sequence[NewTopic]) -> None:
    """Do the same for any topics."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka, client_id="eshop-topics")
    await admin.start()
    try:
        await _create_missing(admin, topics)
        for topic in await _all_visible(admin, topics):
            _compare(topic, next(wanted for wanted in topics if wanted.name == topic["topic"]))
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


async def _all_visible(admin: AIOKafkaAdminClient, topics: Sequence[NewTopic]) -> list[dict[str, Any]]:
    names, give_up_at = [topic.name for topic in topics], time.monotonic() + VISIBLE_SECONDS_MAX
    while True:
        found = [topic for topic in await admin.describe_topics(names) if topic["error_code"] == 0]
        if len(found) == len(names):
            return found
        if time.monotonic() > give_up_at:
            missing = sorted(set(names) - {topic["topic"] for topic in found})
            raise TimeoutError(f"the broker does not show {', '.join(missing)}")
        await asyncio.sleep(POLL_SECONDS)


def _compare(found: dict[str, Any], wanted: NewTopic) -> None:
    count, partitions = len(found["partitions"]), wanted.num_partitions
    if count < partitions:
        raise TopicMismatch(f"{wanted.name} has {count} partitions, the catalogue says {partitions}")
    if count > partitions:
        logger.warning(
            "%s has %d partitions; messages go to the first %d, as the catalogue says",
            *(wanted.name, count, partitions),
        )
    fewest, copies = min(len(at["replicas"]) for at in found["partitions"]), wanted.replication_factor
    if fewest < copies:
        raise TopicMismatch(f"{wanted.name} has {fewest} copies, ESHOP_TOPIC_REPLICATION says {copies}")
