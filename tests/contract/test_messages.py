"""Messages on the wire: every published version stays readable, and what can't be read says why."""

import json
from pathlib import Path
from typing import Any

import pytest

from eshop.contracts.bodies import UnknownEvent
from eshop.contracts.envelope import Envelope, UndecodableMessage
from eshop.contracts.messages import SCHEMAS, Origin, decode, encode, schema_of
from eshop.contracts.services import TOPICS

GOLDEN = {
    path.stem: json.loads(path.read_text()) for path in (Path(__file__).parent / "golden").glob("*.json")
}
ORIGIN = Origin("topic", 3, 42)
ORDER_CREATED = GOLDEN["orders.v1.OrderCreated"]


def headers_of(golden: dict[str, Any]) -> list[tuple[str, bytes]]:
    """Return a golden file's headers as Kafka has them."""
    return [(name, text.encode()) for name, text in golden["headers"].items()]


def value_of(golden: dict[str, Any]) -> bytes:
    """Return a golden file's value as Kafka has it."""
    return json.dumps(golden["value"]).encode()


@pytest.mark.parametrize("name", GOLDEN)
def test_message_of_every_published_version_is_read(name: str) -> None:
    golden = GOLDEN[name]
    message = decode(ORIGIN, golden["key"].encode(), value_of(golden), headers_of(golden))
    assert (message.message_id, message.user_id, message.origin) == (
        golden["headers"]["ce_id"],
        "ann",
        ORIGIN,
    )
    assert message.envelope.correlation_id == "c-1"


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.dataschema)
def test_newest_version_is_written_as_its_golden_file(schema: Any) -> None:
    golden = GOLDEN[schema.dataschema.removeprefix("eshop/").replace("/", ".")]
    message = decode(ORIGIN, golden["key"].encode(), value_of(golden), headers_of(golden))
    assert schema_of(message.body) == schema
    assert schema.topic.name == golden["topic"]
    assert json.loads(encode(message.body)) == golden["value"]
    assert {name: value.decode() for name, value in message.envelope.to_headers()} == golden["headers"]


def test_unknown_field_of_a_newer_writer_is_tolerated() -> None:
    newer = json.dumps({**ORDER_CREATED["value"], "added_later": {"x": 1}}).encode()
    assert decode(ORIGIN, b"ann", newer, headers_of(ORDER_CREATED)).user_id == "ann"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("amount_minor", 0),
        ("amount_minor", -5),
        ("amount_minor", 1.0),
        ("amount_minor", "5"),
        ("amount_minor", True),
        ("amount_minor", 10**30),
        ("amount_minor", None),
        ("order_id", "not-a-uuid"),
        ("currency", "usd"),
        ("user_id", ""),
        ("user_id", "bob"),
        ("feed_number", 0),
    ],
)
def test_body_with_a_wrong_field_is_undecodable(field: str, value: object) -> None:
    wrong = json.dumps({**ORDER_CREATED["value"], field: value}).encode()
    with pytest.raises(UndecodableMessage):
        decode(ORIGIN, b"ann", wrong, headers_of(ORDER_CREATED))


@pytest.mark.parametrize("value", [None, b"", b"{", b"[]", b"null", b"\xff\xfe", b"x" * 1_000_000])
def test_value_that_is_no_body_is_undecodable(value: bytes | None) -> None:
    with pytest.raises(UndecodableMessage):
        decode(ORIGIN, b"ann", value, headers_of(ORDER_CREATED))


@pytest.mark.parametrize(
    "name", ["ce_id", "ce_type", "ce_source", "ce_time", "ce_dataschema", "correlation_id"]
)
def test_missing_header_is_named(name: str) -> None:
    headers = [pair for pair in headers_of(ORDER_CREATED) if pair[0] != name]
    with pytest.raises(UndecodableMessage, match=name):
        decode(ORIGIN, b"ann", value_of(ORDER_CREATED), headers)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ce_dataschema", "eshop/orders/v99/OrderCreated"),
        ("ce_dataschema", "x"),
        ("ce_time", "yesterday"),
        ("ce_id", "not-a-uuid"),
    ],
)
def test_header_that_says_nothing_known_is_undecodable(name: str, text: str) -> None:
    headers = [(key, text.encode() if key == name else value) for key, value in headers_of(ORDER_CREATED)]
    with pytest.raises(UndecodableMessage):
        decode(ORIGIN, b"ann", value_of(ORDER_CREATED), headers)


def test_message_without_key_or_headers_is_undecodable() -> None:
    for key, headers in (
        (None, headers_of(ORDER_CREATED)),
        (b"ann", None),
        (b"bob", headers_of(ORDER_CREATED)),
    ):
        with pytest.raises(UndecodableMessage):
            decode(ORIGIN, key, value_of(ORDER_CREATED), headers)


def test_catalogue_has_every_message_once_and_all_topics_keyed_alike() -> None:
    assert {(topic.name, name) for topic in TOPICS for name in topic.messages} == {
        (schema.topic.name, schema.body.__name__) for schema in SCHEMAS
    }
    assert len({schema.dataschema for schema in SCHEMAS}) == len(SCHEMAS)
    assert {topic.partitions for topic in TOPICS} == {12}


def test_envelope_survives_headers() -> None:
    envelope = Envelope.from_headers(headers_of(ORDER_CREATED))
    assert Envelope.from_headers(envelope.to_headers()) == envelope


@pytest.mark.parametrize("name", ["correlation_id", "causation_id", "traceparent", "ce_type"])
@pytest.mark.parametrize("text", [b"a\x00b", b"x" * 100_000, b"\xff"])
def test_header_that_could_not_be_carried_on_is_undecodable(name: str, text: bytes) -> None:
    headers = [pair for pair in headers_of(ORDER_CREATED) if pair[0] != name]
    with pytest.raises(UndecodableMessage):
        decode(ORIGIN, b"ann", value_of(ORDER_CREATED), [*headers, (name, text)])


def test_header_that_nobody_reads_may_hold_anything() -> None:
    decode(ORIGIN, b"ann", value_of(ORDER_CREATED), [*headers_of(ORDER_CREATED), ("other", b"\xff\x00")])


def test_user_that_postgres_could_not_hold_is_undecodable() -> None:
    value = json.dumps({**ORDER_CREATED["value"], "user_id": "a\x00b"}).encode()
    with pytest.raises(UndecodableMessage):
        decode(ORIGIN, b"a\x00b", value, headers_of(ORDER_CREATED))


def newer(name: str, *, type_: str = "eshop.orders.OrderRenamed", schema: str) -> list[tuple[str, bytes]]:
    """Return headers of a message with this type and schema."""
    return [
        *(pair for pair in headers_of(GOLDEN[name]) if pair[0] not in ("ce_type", "ce_dataschema")),
        ("ce_type", type_.encode()),
        ("ce_dataschema", schema.encode()),
    ]


def test_type_that_only_newer_versions_know_is_read_as_far_as_it_is_known() -> None:
    headers = newer("orders.v1.OrderCreated", schema="eshop/orders/v3/OrderRenamed")
    message = decode(ORIGIN, b"ann", b'{"user_id": "ann", "title": "lamp"}', headers)
    assert message.body == UnknownEvent(user_id="ann")
    assert message.envelope.type == "eshop.orders.OrderRenamed"


@pytest.mark.parametrize(
    ("type_", "schema"),
    [
        ("eshop.orders.OrderCreated", "eshop/orders/v2/OrderCreated"),
        ("eshop.orders.OrderCreated", "eshop/orders/v1/OrderRenamed"),
        ("eshop.orders.OrderRenamed", "eshop/orders/v1/OrderCreated"),
        ("eshop.orders.OrderRenamed", "eshop/payments/v1/OrderRenamed"),
        ("eshop.orders.OrderRenamed", "eshop/orders/OrderRenamed"),
        ("eshop.orders.OrderRenamed", "x"),
        ("OrderRenamed", "eshop/orders/v1/OrderRenamed"),
        ("", ""),
    ],
)
def test_known_type_of_another_version_and_names_that_do_not_fit_are_undecodable(
    type_: str, schema: str
) -> None:
    with pytest.raises(UndecodableMessage, match="schema"):
        decode(
            ORIGIN,
            b"ann",
            value_of(ORDER_CREATED),
            newer("orders.v1.OrderCreated", type_=type_, schema=schema),
        )


@pytest.mark.parametrize(
    ("key", "value"), [(b"bob", b'{"user_id": "ann"}'), (b"ann", b"{}"), (b"ann", b"["), (b"ann", None)]
)
def test_malformed_message_of_an_unknown_type_is_undecodable(key: bytes, value: bytes | None) -> None:
    headers = newer("orders.v1.OrderCreated", schema="eshop/orders/v1/OrderRenamed")
    with pytest.raises(UndecodableMessage):
        decode(ORIGIN, key, value, headers)
