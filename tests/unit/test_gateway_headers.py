"""Headers and queries: identity, idempotency keys, traces, pages, conditions, waits."""

from collections.abc import Iterable
from datetime import UTC, datetime

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from gateway.http.conditions import condition_of, wait_preferred
from gateway.http.idempotency import fingerprint, key_of
from gateway.http.identity import user_of, user_of_socket
from gateway.http.problems import KINDS, Problem
from gateway.http.queries import OrderQuery, OrdersQuery, PageQuery, Query, cursor_text, read_query
from gateway.http.tracing import trace_of


def asked(path: str = "/", headers: Iterable[tuple[str, str]] = ()) -> web.Request:
    return make_mocked_request("GET", path, headers=CIMultiDict(headers))


@pytest.mark.parametrize("name", ["a", "user@example.org", "x" * 128, "~!$", "a:b/c*d[e]"])
def test_a_visible_name_is_a_user(name: str) -> None:
    assert user_of(asked(headers=[("X-User-Id", name)])) == name


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("X-User-Id", "")],
        [("X-User-Id", "a b")],
        [("X-User-Id", " a")],
        [("X-User-Id", "a,b")],
        [("X-User-Id", "a\tb")],
        [("X-User-Id", "ü")],
        [("X-User-Id", "a\x7f")],
        [("X-User-Id", "x" * 129)],
        [("X-User-Id", "a"), ("X-User-Id", "b")],
        [("X-User-Id", "a"), ("x-user-id", "a")],
    ],
)
def test_nobody_is_served_nothing(headers: list[tuple[str, str]]) -> None:
    with pytest.raises(Problem) as refused:
        user_of(asked(headers=headers))
    assert refused.value.code == "unauthenticated"


def test_only_a_socket_names_its_user_in_the_query() -> None:
    assert user_of_socket(asked("/?user=ann")) == "ann"
    with pytest.raises(Problem):
        user_of(asked("/?user=ann"))
    with pytest.raises(Problem):
        user_of_socket(asked("/?user=ann", [("X-User-Id", "a b")]))


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ("k", "k"),
        ('"k"', "k"),
        ('"a\\"b\\\\c"', 'a"b\\c'),
        ("x" * 255, "x" * 255),
        ('a"b', 'a"b'),
        ("é", None),
    ],
)
def test_both_forms_of_a_key_are_read(header: str, key: str | None) -> None:
    request = asked(headers=[("Idempotency-Key", header)])
    if key is None:
        with pytest.raises(Problem):
            key_of(request)
    else:
        assert key_of(request) == key


@pytest.mark.parametrize("header", ["", '""', "x" * 256, "a b", "a\x01b", '"a', '"a"b', '"a\\x"', "\x7f"])
def test_a_malformed_key_is_refused(header: str) -> None:
    with pytest.raises(Problem) as refused:
        key_of(asked(headers=[("Idempotency-Key", header)]))
    assert (refused.value.code, refused.value.kind.status) == ("bad-idempotency-key", 400)


def test_a_key_is_optional_unless_required() -> None:
    assert key_of(asked()) == ""
    with pytest.raises(Problem) as refused:
        key_of(asked(), required=True)
    assert refused.value.kind.status == 400


def test_the_fingerprint_is_of_the_request_not_of_its_spelling() -> None:
    same = fingerprint("POST", "/p", {"a": 1, "b": [{"c": 2, "d": 3}]})
    assert same == fingerprint("POST", "/p", {"b": [{"d": 3, "c": 2}], "a": 1})
    assert len(same) == 32
    others = [("PUT", "/p", {"a": 1}), ("POST", "/q", {"a": 1}), ("POST", "/p", {"a": 2}), ("POST", "/p", {})]
    assert same not in {fingerprint(*other) for other in others}


def test_a_valid_trace_is_carried_on_under_a_span_of_our_own() -> None:
    caller = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
    trace = trace_of(asked(headers=[("traceparent", caller), ("X-Request-Id", "r-1")]))
    assert trace.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736"
    version, trace_id, span_id, flags = trace.traceparent.split("-")
    assert (version, trace_id, flags) == ("00", trace.trace_id, "00")
    assert span_id != "00f067aa0ba902b7"
    assert trace.correlation_id == "r-1"


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
    ],
)
def test_an_invalid_trace_is_replaced(header: str) -> None:
    trace = trace_of(asked(headers=[("traceparent", header), ("X-Request-Id", "a b")]))
    assert trace.trace_id not in header or not header
    assert len(trace.traceparent) == 55
    assert trace.correlation_id != "a b"


def test_a_cursor_comes_back_as_the_number_it_was_made_of() -> None:
    for number in (1, 42, 2**63 - 1):
        assert read_query(PageQuery, asked(f"/?cursor={cursor_text(number)}")).before_feed_number == number


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "42", "!!!!", cursor_text(0), cursor_text(2**63), cursor_text(5) + "=", "a" * 5000, "%00"],
)
def test_a_cursor_that_is_not_ours_is_refused(cursor: str) -> None:
    with pytest.raises(Problem) as refused:
        read_query(PageQuery, asked(f"/?cursor={cursor}"))
    assert refused.value.code == "bad-cursor"


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=x",
        "limit=",
        "limit=1.0",
        "status=new",
        "status=",
        "created_after=yesterday",
        "created_after=2026-01-01",
        "created_after=2026-01-01T00:00:00",
        "created_before=2026-13-01T00:00:00Z",
        "created_before=0001-01-01T00:00:00%2B10:00",
        "created_before=2026-01-01T00:00:00+00:00",
        "created_after=9999-12-31T23:59:59-23:59",
        "created_before=0002-01-01T00:00:00%2B23:59",
        "created_after=2026-01-01T00:00:00%2B24:00",
        "satus=NEW",
        "before_feed_number=4",
        "wait=1",
        "limit=5&limit=5",
        "limit=5&limit=6",
        "x=1&x=2",
    ],
)
def test_a_malformed_query_is_refused(query: str) -> None:
    with pytest.raises(Problem) as refused:
        read_query(OrdersQuery, asked(f"/?{query}"))
    assert (refused.value.code, refused.value.kind.status) == ("bad-query", 400)


def test_a_page_query_is_read() -> None:
    request = asked(
        "/?limit=100&status=NEW&created_after=2026-01-02T03:04:05.678Z&created_before=2026-01-03T00:00:00%2B02:00"
    )
    wanted = read_query(OrdersQuery, request)
    assert (wanted.limit, wanted.status, wanted.before_feed_number) == (100, "NEW", 0)
    assert wanted.created_after == datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
    assert wanted.created_before == datetime(2026, 1, 2, 22, tzinfo=UTC)
    assert read_query(PageQuery, asked()).limit == 20


@pytest.mark.parametrize(
    ("header", "floor", "met"),
    [
        ('"3"', 3, True),
        ('W/"3"', 3, True),
        ('"1", "3", "2"', 3, True),
        ('"4"', 4, False),
        ('"x"', 0, False),
        ("3", 0, False),
        ("*", 0, True),
        ("", 0, False),
    ],
)
def test_a_condition_is_also_a_floor(header: str, floor: int, met: bool) -> None:
    condition = condition_of(asked(headers=[("If-None-Match", header)]))
    assert (condition.floor, condition.met_by(3)) == (floor, met)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("wait=5", 5),
        ("respond-async, wait=10", 10),
        ("wait = 7", 7),
        ("wait=999", 30),
        ("wait=-1", 0),
        ("wait=x", 0),
        ("await=5", 0),
        ("wait=5x", 0),
        ("", 0),
    ],
)
def test_a_preferred_wait_is_bounded_and_never_an_error(header: str, seconds: int) -> None:
    assert wait_preferred(asked(headers=[("Prefer", header)])) == seconds


def test_a_wait_in_the_query_is_checked() -> None:
    assert read_query(OrderQuery, asked("/?wait=30")).wait == 30
    assert read_query(OrderQuery, asked("/")).wait == 0
    for wrong in ("31", "-1", "x", "1.5"):
        with pytest.raises(Problem):
            read_query(OrderQuery, asked(f"/?wait={wrong}"))


def test_an_operation_without_a_query_has_no_parameters() -> None:
    with pytest.raises(Problem) as refused:
        read_query(Query, asked("/?limit=5"))
    assert refused.value.detail == "The parameters here: none."


def test_every_problem_is_a_client_error_or_an_honest_failure() -> None:
    assert {kind.status for kind in KINDS.values()} <= {
        400,
        401,
        403,
        404,
        405,
        408,
        409,
        413,
        415,
        422,
        429,
        431,
        500,
        503,
        504,
    }
    assert all(kind.retry for kind in KINDS.values() if kind.status in (429, 503, 504))
