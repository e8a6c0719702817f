"""The sources of an audit: the databases and the broker of a shop."""

from collections.abc import Sequence
from dataclasses import dataclass

from eshop.audit.databases import Database
from eshop.contracts.services import AUDITED
from eshop.settings import Settings


@dataclass(frozen=True, slots=True)
class Sources:
    """Both databases, the broker, and the names of this shop's topics and groups there."""

    orders_url: str
    payments_url: str
    kafka: str
    settings: Settings

    def orders(self) -> Database:
        """Connect to orders."""
        return Database("orders", self.orders_url)

    def payments(self) -> Database:
        """Connect to payments."""
        return Database("payments", self.payments_url)

    def groups(self) -> Sequence[tuple[str, str]]:
        """Return each audited service's consumer group with each topic that the group reads."""
        return [
            (self.settings.group(service.name), self.settings.topic(topic.name))
            for service in AUDITED
            for topic in service.reads
        ]
