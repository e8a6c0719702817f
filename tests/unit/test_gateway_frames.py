"""A frame is the same from an event and from history, to the byte."""

from datetime import UTC, datetime, timedelta, timezone

import orjson
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from eshop.contracts import orders_v1, payments_v1
from eshop.contracts.bodies import Body
from eshop.contracts.envelope import Envelope
from eshop.contracts.messages import Message, Origin
from eshop.contracts.proto.orders_v1_pb2 import OrderFrame
from eshop.contracts.proto.payments_v1_pb2 import WalletFrame
from gateway.feed import frames
from gateway.feed.frames import Position
from gateway.http.views import stamp_text, time_text

ORDER_ID = "01a20499-b516-70c7-84d1-48eb107a5d12"
AT = datetime(2026, 11, 22, 18, 0, 0, 120_000, UTC)
MONEY = {"user_id": "ann", "amount_minor": 5, "currency": "USD"}
ORDER = {**MONEY, "order_id": ORDER_ID, "version": 2, "feed_number": 7}
WALLET = {"user_id": "ann", "balance_minor": 95, "currency": "USD", "version": 3, "feed_number": 3}


def message(body: Body) -> Message:
    envelope = Envelope("id", "type", "source", "schema", AT, "correlation", "causation")
    return Message(envelope, body, Origin("topic", 0, 0))


def stamp() -> Timestamp:
    made = Timestamp()
    made.FromDatetime(AT)
    return made


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (orders_v1.OrderCreated.model_validate({**ORDER, "pay_before": AT}), "NEW", ""),
        (orders_v1.OrderFinished.model_validate(ORDER), "FINISHED", ""),
        (orders_v1.OrderCancelled.model_validate({**ORDER, "reason": "user"}), "CANCELLED", "user"),
    ],
)
def test_an_orders_frame_is_the_same_from_both(body: Body, status: str, reason: str) -> None:
    row = OrderFrame(feed_number=7, order_id=ORDER_ID, status=status, reason=reason, version=2, at=stamp())
    live = frames.of_event(message(body))
    assert live == frames.of_order_history(row)
    assert live is not None
    assert orjson.loads(live.render(Position(7, 1))) == {
        "id": "7.1",
        "stream": "orders",
        "seq": 7,
        "type": "order.status",
        "order_id": ORDER_ID,
        "status": status,
        "reason": reason or None,
        "version": 2,
        "at": "2026-11-22T18:00:00.120000Z",
    }


@pytest.mark.parametrize(
    "body",
    [
        payments_v1.AccountOpened.model_validate(WALLET),
        payments_v1.AccountClosed.model_validate(WALLET),
        payments_v1.AccountFrozen.model_validate(WALLET),
        payments_v1.AccountUnfrozen.model_validate(WALLET),
        payments_v1.AccountToppedUp.model_validate({**WALLET, "transfer_id": ORDER_ID, "amount_minor": 5}),
        payments_v1.PaymentCaptured.model_validate({**WALLET, "order_id": ORDER_ID, "amount_minor": 5}),
        payments_v1.PaymentRefunded.model_validate(
            {**WALLET, "order_id": ORDER_ID, "amount_minor": 5, "reason": "user"}
        ),
    ],
)
def test_a_wallets_frame_is_the_same_from_both(body: Body) -> None:
    row = WalletFrame(feed_number=3, balance_minor=95, currency="USD", version=3, at=stamp())
    live = frames.of_event(message(body))
    assert live == frames.of_wallet_history(row)
    assert live is not None
    assert orjson.loads(live.render(Position(0, 3))) == {
        "id": "0.3",
        "stream": "wallet",
        "seq": 3,
        "type": "wallet.balance",
        "balance_minor": 95,
        "currency": "USD",
        "version": 3,
        "at": "2026-11-22T18:00:00.120000Z",
    }


@pytest.mark.parametrize(
    "body",
    [
        orders_v1.OrderCancellationRequested(user_id="ann", order_id=ORDER_ID, reason="user"),
        payments_v1.PaymentRefused(user_id="ann", order_id=ORDER_ID, reason="no_account"),
    ],
)
def test_what_no_client_sees_makes_no_frame(body: Body) -> None:
    assert frames.of_event(message(body)) is None


def test_times_are_written_in_one_way() -> None:
    whole = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    assert time_text(whole) == "2026-01-02T01:04:05.000000Z"
    made = Timestamp()
    made.FromDatetime(whole)
    assert stamp_text(made) == time_text(whole)
