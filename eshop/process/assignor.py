"""The assignment of a table's partitions and of its source topics: always the same numbers together."""

from typing import Any

from faust.assignor.partition_assignor import PartitionAssignor

from eshop.contracts.topics import PARTITIONS


class CataloguePartitionAssignor(PartitionAssignor):
    """Faust's assignor, for which every topic has the catalogue's number of partitions.

    Faust co-partitions topics only if they have equally many partitions. A topic that has grown would be
    assigned by itself, and the user's events could reach a worker without the user's entry. Partitions beyond
    the catalogue's number are empty: messages are placed by that number.
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
