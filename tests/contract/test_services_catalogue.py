"""The catalogue of services: what must hold of every entry, also of one that is added."""

from importlib import import_module

import pytest
import yaml

from eshop.contracts.messages import SCHEMAS, parked_by
from eshop.contracts.services import OTHER_HTTP_PORTS, SERVICES, TOPICS, Service
from eshop.settings import DEFAULT_PORTS
from eshop.store.schema import SHARED, schema_of
from gateway.feed.frames import Stream
from tests.support.worker_process import ROOT

COMPOSE = yaml.safe_load((ROOT / "docker/compose.shop.yaml").read_text())


@pytest.fixture(params=SERVICES.values(), ids=lambda service: service.name)
def service(request: pytest.FixtureRequest) -> Service:
    """Each service of the catalogue."""
    found: Service = request.param
    return found


def test_no_two_processes_share_a_port() -> None:
    ports = [port for pair in DEFAULT_PORTS.values() for port in pair if port is not None]
    assert len(ports) == len(set(ports)) == 2 * len(SERVICES) + len(OTHER_HTTP_PORTS)


def test_each_topic_is_of_one_service_and_named_after_it(service: Service) -> None:
    assert service.events.name == f"eshop.{service.name}.events.v1"
    assert service.dead_letters.name == f"eshop.{service.name}.dead-letters.v1"
    assert len({topic.name for topic in TOPICS}) == 2 * len(SERVICES)


def test_it_reads_events_of_others_only(service: Service) -> None:
    others = [other.events for other in SERVICES.values() if other is not service]
    assert service.reads
    assert all(topic in others for topic in service.reads)


def test_it_announces_its_dead_letters(service: Service) -> None:
    assert parked_by(service).__module__ == f"eshop.contracts.{service.name}_v1"


def test_its_messages_are_named_after_it(service: Service) -> None:
    types = [schema.type for schema in SCHEMAS if schema.service == service.name]
    assert len(types) == len(service.events.messages) + len(service.dead_letters.messages)


def test_each_service_has_a_stream_of_the_feed_and_serves_it(service: Service) -> None:
    assert [other.stream for other in SERVICES.values()].count(service.stream) == 1
    assert service.stream in set(Stream)
    proto = import_module(f"eshop.contracts.proto.{service.name}_v1_pb2").DESCRIPTOR
    (own,) = proto.services_by_name.values()
    asked = {method.name: method.input_type.full_name for method in own.methods}
    assert asked["ReadFeed"] == "eshop.v1.ReadFeedRequest"
    assert asked["FeedHeads"] == "eshop.v1.FeedHeadsRequest"


def test_it_has_the_shared_tables_and_its_insert_only_tables(service: Service) -> None:
    tables = schema_of(service.name).tables
    assert set(SHARED.tables) < set(tables)
    assert set(service.insert_only) <= set(tables)


def test_its_worker_can_be_imported_and_is_in_the_compose_file(service: Service) -> None:
    assert import_module(f"eshop.{service.name}").app.kind == service.name
    assert f"eshop.{service.name}" in COMPOSE["services"][service.name]["command"]
    assert COMPOSE["services"][f"migrate-{service.name}"]["command"] == ["eshop", "migrate", service.name]
