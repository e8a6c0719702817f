"""The content of a feed: frames of the two streams, from events and from history alike, and the cursor."""

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

import orjson

from eshop.contracts import messages, orders_v1, payments_v1
from eshop.contracts.proto import orders_v1_pb2, payments_v1_pb2
from eshop.contracts.statuses import CANCELLED, FINISHED, NEW
from gateway.http.problems import Problem
from gateway.http.views import stamp_text, time_text, wallet_view

_MARK = r"(0|[1-9][0-9]{0,15}|@[1-9][0-9]{12})"
_CURSOR = re.compile(rf"{_MARK}\.{_MARK}")


class Stream(StrEnum):
    """A feed's two streams, each numbered by its own service."""

    ORDERS = "orders"
    WALLET = "wallet"


@dataclass(frozen=True, slots=True)
class Since:
    """A time, in milliseconds since the epoch, from which a reader wants a stream.

    It replaces the feed number that the service could not tell when the feed was opened.
    """

    at_ms: int

    def at(self) -> str:
        """Return the time in the form of a frame's ``at``, so that both compare as text."""
        return time_text(datetime.fromtimestamp(self.at_ms / 1000, UTC))

    def __str__(self) -> str:
        return f"@{self.at_ms}"


@dataclass(frozen=True, slots=True)
class Position:
    """A reader's position in both streams: the last feed numbers. 0: no frame yet."""

    orders: int | Since = 0
    wallet: int | Since = 0

    @classmethod
    def parse(cls, cursor: str) -> Self:
        """Read a cursor; raise a 400 Problem."""
        match = _CURSOR.fullmatch(cursor)
        if match is None:
            raise Problem("bad-cursor")
        return cls(_mark(match[1]), _mark(match[2]))

    def text(self) -> str:
        """Return the cursor."""
        return f"{self.orders}.{self.wallet}"

    def of(self, stream: Stream) -> int | Since:
        """Return the last feed number of a stream, or the time in its place."""
        return self.orders if stream is Stream.ORDERS else self.wallet

    def at(self, stream: Stream, feed_number: int) -> Self:
        """Return the position with one stream moved."""
        return (
            replace(self, orders=feed_number)
            if stream is Stream.ORDERS
            else replace(self, wallet=feed_number)
        )


@dataclass(frozen=True, slots=True)
class Frame:
    """A change of a user's order or wallet. ``entity`` is the order's id, or "" for the wallet."""

    stream: Stream
    feed_number: int
    entity: str
    version: int
    fields: dict[str, Any]

    def render(self, position: Position) -> str:
        """Return the JSON for a reader who is at ``position`` after this frame."""
        head = {"id": position.text(), "stream": self.stream.value, "seq": self.feed_number}
        return orjson.dumps({**head, **self.fields}).decode()


def _mark(text: str) -> int | Since:
    return Since(int(text[1:])) if text.startswith("@") else int(text)


def hello(position: Position) -> str:
    """Return the first frame of a connection: its start."""
    return orjson.dumps({"id": position.text(), "type": "hello", "cursor": position.text()}).decode()


def of_event(message: messages.Message) -> Frame | None:
    """Return the frame an event is pushed as; None for events no client sees."""
    at = time_text(message.envelope.time)
    match message.body:
        case orders_v1.OrderCreated() as body:
            return _order(body.feed_number, body.order_id, NEW, "", body.version, at)
        case orders_v1.OrderFinished() as body:
            return _order(body.feed_number, body.order_id, FINISHED, "", body.version, at)
        case orders_v1.OrderCancelled() as body:
            return _order(body.feed_number, body.order_id, CANCELLED, body.reason, body.version, at)
        case payments_v1.WalletChanged() as body:
            return _wallet(body.feed_number, body.balance_minor, body.currency, body.version, at)
        case _:
            return None


def of_order_history(row: orders_v1_pb2.OrderFrame) -> Frame:
    """Return the same frame from the orders service's history."""
    return _order(row.feed_number, row.order_id, row.status, row.reason, row.version, stamp_text(row.at))


def of_wallet_history(row: payments_v1_pb2.WalletFrame) -> Frame:
    """Return the same frame from the payments service's history."""
    return _wallet(row.feed_number, row.balance_minor, row.currency, row.version, stamp_text(row.at))


def _order(feed_number: int, order_id: str, status: str, reason: str, version: int, at: str) -> Frame:
    fields = {
        "type": "order.status",
        "order_id": order_id,
        "status": status,
        "reason": reason or None,
        "version": version,
        "at": at,
    }
    return Frame(Stream.ORDERS, feed_number, order_id, version, fields)


def _wallet(feed_number: int, balance_minor: int, currency: str, version: int, at: str) -> Frame:
    fields = {"type": "wallet.balance", **wallet_view(balance_minor, currency, version), "at": at}
    return Frame(Stream.WALLET, feed_number, "", version, fields)
