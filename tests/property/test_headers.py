"""Is every message either refused as undecodable, or of a form that every reader can handle?"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eshop.contracts.envelope import UndecodableMessage
from eshop.contracts.messages import Message, Origin, decode, encode
from eshop.tables.entry import UserEntry, from_bytes, to_bytes
from eshop.tables.fold import fold
from eshop.tables.totals import Totals, newest_minutes
from gateway.feed.frames import Position, of_event

ORIGIN = Origin("topic", 0, 0)
BODY: dict[str, Any] = {
    "user_id": "ann",
    "order_id": "01890a5d-ac96-774b-bcce-b302099a8057",
    "amount_minor": 5,
    "currency": "USD",
    "version": 1,
    "feed_number": 1,
    "pay_before": "2026-01-01T00:00:00Z",
}
HEADERS = {
    "ce_id": b"01890a5d-ac96-774b-bcce-b302099a8057",
    "ce_type": b"eshop.orders.OrderCreated",
    "ce_source": b"eshop/orders",
    "ce_dataschema": b"eshop/orders/v1/OrderCreated",
    "ce_time": b"2026-01-01T00:00:00+00:00",
    "correlation_id": b"c",
    "causation_id": b"c",
    "traceparent": b"",
}

offsets = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(
    lambda minutes: f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
)
times = st.one_of(
    st.builds(lambda at, zone: at.isoformat() + zone, st.datetimes(), st.just("") | st.just("Z") | offsets),
    st.sampled_from(["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "0001-01-01T00:00:00"]),
    st.text(max_size=40),
)
numbers = st.integers() | st.sampled_from([0, 1, 2**31, 2**53 - 1, 2**53, 2**63, 10**400, -1])


def read(headers: Mapping[str, bytes | None], value: bytes) -> Message | None:
    """Return the message, or None if it is undecodable: it may raise nothing else."""
    try:
        return decode(ORIGIN, b"ann", value, list(headers.items()))
    except UndecodableMessage:
        return None


def handle_everywhere(message: Message) -> None:
    """Do with a message what the readers do that are not in a database."""
    moment = message.envelope.time
    assert moment.tzinfo is UTC
    assert 2000 <= moment.year < 2200
    minute = int(moment.timestamp()) // 60
    folded = fold(UserEntry(), message.body, minute, now=minute)
    assert from_bytes(to_bytes(folded.entry)) == folded.entry
    totals = Totals([folded.entry], clock=lambda: moment.timestamp())
    orjson.dumps([totals.sums(), newest_minutes(totals.window(), moment.timestamp())])
    frame = of_event(message)
    if frame is not None:
        orjson.loads(frame.render(Position()))
    assert message.envelope.from_headers(message.envelope.to_headers()) == message.envelope
    json.loads(encode(message.body))


@given(times)
@example("9999-12-31T23:59:59-23:59")
@example("0001-01-01T00:00:00+23:59")
def test_any_time_in_a_header_is_refused_or_handled(text: str) -> None:
    message = read(HEADERS | {"ce_time": text.encode(errors="surrogatepass")}, orjson.dumps(BODY))
    if message is not None:
        handle_everywhere(message)
        assert message.envelope.time == datetime.fromisoformat(text)


@given(times)
def test_any_time_in_a_body_is_refused_or_handled(text: str) -> None:
    message = read(HEADERS, json.dumps(BODY | {"pay_before": text}).encode(errors="surrogatepass"))
    if message is not None:
        handle_everywhere(message)
        assert message.body.pay_before.year >= 2000  # type: ignore[attr-defined]


@given(st.sampled_from(sorted(HEADERS)), st.none() | st.binary(max_size=300) | st.text().map(str.encode))
def test_any_header_is_refused_or_handled(name: str, value: bytes | None) -> None:
    message = read(HEADERS | {name: value}, orjson.dumps(BODY))
    if message is not None:
        handle_everywhere(message)


@given(st.sampled_from(["amount_minor", "version", "feed_number"]), numbers)
def test_any_number_in_a_body_is_refused_or_handled(name: str, number: int) -> None:
    digits = json.dumps(BODY | {name: "NUMBER"}).replace('"NUMBER"', f"{number:d}")
    message = read(HEADERS, digits.encode())
    if message is not None:
        handle_everywhere(message)


@given(st.sampled_from(sorted(BODY)), st.text() | st.none() | st.floats() | st.lists(st.integers()))
def test_anything_else_in_a_body_is_refused_or_handled(name: str, value: object) -> None:
    message = read(HEADERS, json.dumps(BODY | {name: value}).encode(errors="surrogatepass"))
    if message is not None:
        handle_everywhere(message)


@given(st.lists(st.sampled_from([1, 2**53 - 1]), min_size=1, max_size=20))
def test_sums_of_numbers_in_bounds_stay_in_what_json_holds(amounts: list[int]) -> None:
    entry = UserEntry(turnover_minor={"USD": 2**53 - 1})
    for number, amount in enumerate(amounts, start=1):
        finished = read(
            HEADERS
            | {"ce_type": b"eshop.orders.OrderFinished", "ce_dataschema": b"eshop/orders/v1/OrderFinished"},
            orjson.dumps(BODY | {"amount_minor": amount, "feed_number": number}),
        )
        assert finished is not None
        entry = fold(entry, finished.body, 29_000_000, now=29_000_000).entry
    assert from_bytes(to_bytes(entry)).turnover_minor == {"USD": 2**53 - 1}


@pytest.mark.parametrize(
    "text",
    [
        "0001-01-01T00:00:00",
        "2026-01-01T00:00:00",
        "9999-12-31T23:59:59-23:59",
        "0001-01-01T00:00:00+23:59",
        "1999-12-31T23:59:59+00:00",
        "2200-01-01T00:00:00+00:00",
    ],
)
def test_time_without_a_zone_or_of_no_sane_year_is_undecodable(text: str) -> None:
    assert read(HEADERS | {"ce_time": text.encode()}, orjson.dumps(BODY)) is None


def test_year_is_that_in_utc() -> None:
    message = read(HEADERS | {"ce_time": b"2200-01-01T00:30:00+00:31"}, orjson.dumps(BODY))
    assert message is not None
    assert message.envelope.time == datetime(2199, 12, 31, 23, 59, tzinfo=UTC)
