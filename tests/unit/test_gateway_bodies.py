"""What a body may be: each bad one has its stated answer."""

import json
from typing import Any

import pytest

from gateway.http.bodies import parse_object, validated
from gateway.http.models import AccountFields, OrderFields, TopUpFields
from gateway.http.problems import Problem

ITEM = {"sku": "A-1", "name": "Tea", "quantity": 2, "unit_price_minor": 3}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"nonsense",
        b"[]",
        b'"text"',
        b"5",
        b"null",
        b'{"amount_minor": 5, "amount_minor": 6}',
        b'{"a": {"b": 1, "b": 2}}',
        b'{"amount_minor": NaN}',
        b'{"amount_minor": -Infinity}',
        b'{"amount_minor": 5} trailing',
        b'{"amount_minor": 5}{}',
        b'{"amount_minor": 5,}',
        b'{"a": ' + b"[" * 1000 + b"]" * 1000 + b"}",
        b'{"a": ' + b"[" * 17 + b"]" * 17 + b"}",
        b'{"a":' * 1000 + b"1" + b"}" * 1000,
        b"[" * 30_000,
        b"\xff{}",
        b"\xef\xbb\xbf{}",
        '{"a": 1}'.encode("utf-16"),
        b'{"amount_minor": 1' + b"0" * 5_000 + b"}",
    ],
)
def test_a_body_that_is_not_one_plain_object_is_malformed(body: bytes) -> None:
    with pytest.raises(Problem) as refused:
        parse_object(body)
    assert (refused.value.kind.status, refused.value.code) == (400, "malformed-body")


def test_depth_is_counted_not_brackets() -> None:
    assert parse_object(b'{"a": "' + b"[" * 1000 + b'"}')


@pytest.mark.parametrize(
    "amount",
    [
        0,
        -1,
        1.5,
        5.0,
        1e3,
        1_000_000_001,
        2**31,
        2**53 + 1,
        2**63,
        10**30,
        "5",
        "",
        True,
        False,
        None,
        [5],
        {},
    ],
)
@pytest.mark.parametrize("model", [OrderFields, TopUpFields])
def test_an_amount_is_a_whole_number_within_bounds(
    model: type[OrderFields] | type[TopUpFields], amount: Any
) -> None:
    with pytest.raises(Problem) as refused:
        validated(model, {"amount_minor": amount})
    assert refused.value.kind.status == 422
    assert [flaw.pointer for flaw in refused.value.flaws] == ["/amount_minor"]


@pytest.mark.parametrize("amount", [1, 5, 1_000_000_000])
def test_amounts_on_the_bounds_are_fine(amount: int) -> None:
    assert validated(OrderFields, {"amount_minor": amount}).amount_minor == amount


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({}, "/amount_minor"),
        ({"amount_minor": 6, "status": "FINISHED"}, "/status"),
        ({"amount_minor": 6, "balance": 1}, "/balance"),
        ({"amount_minor": 6, "version": 1}, "/version"),
        ({"amount_minor": 6, "user_id": "other"}, "/user_id"),
        ({"amount_minor": 6, "a/b~c": 1}, "/a~1b~0c"),
        ({"amount_minor": 6, "currency": "usd"}, "/currency"),
        ({"amount_minor": 6, "currency": "USD\n"}, "/currency"),
        ({"amount_minor": 6, "currency": "USDX"}, "/currency"),
        ({"amount_minor": 6, "currency": 5}, "/currency"),
        ({"amount_minor": 6, "description": "x" * 501}, "/description"),
        ({"amount_minor": 6, "description": "a\0b"}, "/description"),
        ({"amount_minor": 6, "description": "\ud800"}, "/description"),
        ({"amount_minor": 6, "description": "a\udfffb"}, "/description"),
        ({"amount_minor": 6, "currency": "\ud800"}, "/currency"),
        ({"amount_minor": 6, "description": 5}, "/description"),
        ({"amount_minor": 6, "items": [{**ITEM, "sku": "\ud800"}]}, "/items/0/sku"),
        ({"amount_minor": 6, "items": [{**ITEM, "quantity": 1}]}, "/items"),
        ({"amount_minor": 6, "items": "x"}, "/items"),
        ({"amount_minor": 6, "items": None}, "/items"),
        ({"amount_minor": 101, "items": [{**ITEM, "quantity": 1, "unit_price_minor": 1}] * 101}, "/items"),
        ({"amount_minor": 6, "items": [{**ITEM, "quantity": 0}]}, "/items/0/quantity"),
        ({"amount_minor": 6, "items": [{**ITEM, "quantity": -2}]}, "/items/0/quantity"),
        ({"amount_minor": 6, "items": [{**ITEM, "quantity": 10**30}]}, "/items/0/quantity"),
        ({"amount_minor": 6, "items": [{**ITEM, "quantity": True}]}, "/items/0/quantity"),
        ({"amount_minor": 6, "items": [{**ITEM, "unit_price_minor": 10**30}]}, "/items/0/unit_price_minor"),
        (
            # The sum must neither wrap around nor break: 10^17 is not 6.
            {"amount_minor": 6, "items": [{**ITEM, "quantity": 10**6, "unit_price_minor": 10**9}] * 100},
            "/items",
        ),
        ({"amount_minor": 6, "items": [{**ITEM, "unit_price_minor": -3}]}, "/items/0/unit_price_minor"),
        ({"amount_minor": 6, "items": [ITEM, {"sku": ""}]}, "/items/1/sku"),
        ({"amount_minor": 6, "items": [{**ITEM, "price": 3}]}, "/items/0/price"),
    ],
)
def test_a_flaw_is_pointed_at(fields: dict[str, Any], pointer: str) -> None:
    with pytest.raises(Problem) as refused:
        validated(OrderFields, fields)
    assert refused.value.code == "invalid"
    assert pointer in [flaw.pointer for flaw in refused.value.flaws]


def test_a_name_that_utf8_cannot_hold_still_makes_a_problem() -> None:
    with pytest.raises(Problem) as refused:
        validated(AccountFields, parse_object(b'{"\\ud800": 1}'))
    assert refused.value.kind.status == 422
    for flaw in refused.value.flaws:
        flaw.pointer.encode()


def test_flaws_repeat_no_input() -> None:
    with pytest.raises(Problem) as refused:
        validated(OrderFields, {"amount_minor": "secret-text", "currency": "secret-text"})
    assert "secret-text" not in json.dumps([flaw.message for flaw in refused.value.flaws])


def test_items_that_sum_to_the_amount_are_taken() -> None:
    order = validated(OrderFields, {"amount_minor": 6, "items": [ITEM], "description": "ü" * 500})
    assert order.items[0].unit_price_minor == 3


@pytest.mark.parametrize("reference", ["", "x" * 256, "a\0", 5])
def test_a_top_ups_reference_is_text(reference: Any) -> None:
    with pytest.raises(Problem) as refused:
        validated(TopUpFields, {"amount_minor": 5, "reference": reference})
    assert [flaw.pointer for flaw in refused.value.flaws] == ["/reference"]
