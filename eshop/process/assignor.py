"""Which worker has which partitions of a table and of the topics it is made from: always the same ones."""

from typing import Any

from faust.assignor.partition_assignor import PartitionAssignor

from eshop.contracts.topics import PARTITIONS


class CataloguePartitionAssignor(PartitionAssignor):
    """Faust's assignor, which takes every topic to have the catalogue's number of partitions.

    Faust gives the same partitions of topics to the same worker only if the topics have equally many. A topic
    that was made larger would go its own way, and a user's events to a worker without the user's entry. What
    a topic has beyond the catalogue's number is empty: messages are placed by that number.
    """

    @classmethod
    def _get_copartitioned_groups(cls, topics: set[str], cluster: Any, subscriptions: Any) -> Any:
        return super()._get_copartitioned_groups(topics, _Catalogued(cluster), subscriptions)


class _Catalogued:
    """A cluster's topics, without their partitions beyond the catalogue's number."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        known: set[int] | None = self._cluster.partitions_for_topic(topic)
        return known and {partition for partition in known if partition < PARTITIONS}
