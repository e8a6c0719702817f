"""For every sequence of requests, deliveries and faults of several users: the domain keeps its promises.

Where ``test_interleavings`` walks all ways of one order, this machine picks some ways of many: accounts that
open, close, freeze and fill up, orders that share a wallet, messages that come in any order, again, or never.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from eshop.domain.ledger import LedgerAccount, Transfer, TransferKind
from eshop.domain.order import Order, OrderStatus, PaymentOutcome, record_outcome
from eshop.domain.payment import CancelPayment, Payment, PaymentStatus, PayOrder, settle
from eshop.domain.refusal import Refusal
from eshop.domain.wallet import Wallet, close_wallet, open_wallet, set_frozen, top_up

USERS = ("ann", "bob")
AMOUNT_MAX = 60
ANSWERED_BY = {
    OrderStatus.FINISHED: {PaymentStatus.CAPTURED, PaymentStatus.REFUNDED},
    OrderStatus.CANCELLED: {PaymentStatus.REFUSED, PaymentStatus.REFUNDED},
}

users = st.sampled_from(USERS)
amounts = st.sampled_from((20, 39, 40, AMOUNT_MAX))  # few, so that wallets become empty
currencies = st.sampled_from(("USD", "USD", "USD", "EUR"))
M = TypeVar("M")
T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """A payment's outcome, as orders hears of it."""

    order_id: str
    outcome: PaymentOutcome
    reason: str | None


@dataclass
class Topic(Generic[M]):
    """Messages by their numbers: all that were sent, those to be read, those that are decided."""

    sent: list[M] = field(default_factory=list)
    unread: list[int] = field(default_factory=list)
    inbox: set[int] = field(default_factory=set)

    def send(self, message: M) -> None:
        """Send a message under a new id."""
        self.unread.append(len(self.sent))
        self.sent.append(message)

    def claim(self, place: int) -> int | None:
        """Read an unread message, and return its number, or None where it was decided before."""
        number = self.unread.pop(place)
        if number in self.inbox:
            return None
        self.inbox.add(number)
        return number


class Shop(RuleBasedStateMachine):
    """Both services over dictionaries, and topics that keep no order and lose what they like."""

    def __init__(self) -> None:
        super().__init__()
        self.wallets = {user: Wallet(user) for user in USERS}
        self.wallet_feeds: dict[str, list[int]] = defaultdict(list)
        self.ledger: list[Transfer] = []
        self.payments: dict[str, Payment] = {}
        self.orders: dict[str, Order] = {}
        self.cancellation_reason: set[str] = set()
        self.histories: dict[str, list[Order]] = defaultdict(list)
        self.questions: Topic[PayOrder | CancelPayment] = Topic()
        self.answers: Topic[Answer] = Topic()

    @initialize(filled=st.booleans())
    def start(self, filled: bool) -> None:
        if filled:
            for user in USERS:
                self.open(user, "USD")
                self.top_up(user, 2 * AMOUNT_MAX, f"first-{user}")

    # Accounts

    @rule(user=users, currency=currencies)
    def open(self, user: str, currency: str) -> None:
        self.keep(user, open_wallet(self.wallets[user], currency))

    @rule(user=users)
    def close(self, user: str) -> None:
        self.keep(user, close_wallet(self.wallets[user]))

    @rule(user=users, is_frozen=st.booleans())
    def freeze(self, user: str, is_frozen: bool) -> None:
        self.keep(user, set_frozen(self.wallets[user], is_frozen))

    @rule(user=users, amount=amounts, reference=st.none() | st.sampled_from(("r1", "r2", "r3")))
    def top_up(self, user: str, amount: int, reference: str | None) -> None:
        if reference is not None and any(
            (moved.user_id, moved.reference) == (user, reference) for moved in self.ledger
        ):
            return  # refused by the handler: the ledger knows, the wallet does not
        number = str(len(self.ledger))
        decided = top_up(self.wallets[user], amount, transfer_id=f"top-up-{number}", reference=reference)
        if not isinstance(decided, Refusal):
            wallet, moved = decided
            self.ledger.append(moved)
            self.keep(user, wallet)

    def keep(self, user: str, after: Wallet | Refusal) -> None:
        """Store a wallet; a change is a change of its version."""
        if isinstance(after, Wallet) and after != self.wallets[user]:
            assert replace(after, version=0) != replace(self.wallets[user], version=0), (
                "a change changes something"
            )
            assert self.wallets[user].currency in (None, after.currency), "a wallet keeps its currency"
            self.wallet_feeds[user].append(after.version)
            self.wallets[user] = after

    # Orders

    @rule(user=users, amount=amounts, currency=currencies)
    def create(self, user: str, amount: int, currency: str) -> None:
        order = Order(f"order-{len(self.orders)}", user, amount, currency)
        self.orders[order.order_id] = order
        self.histories[order.order_id].append(order)
        self.questions.send(PayOrder(order.order_id, user, amount, currency))

    @precondition(lambda self: self.orders)
    @rule(data=st.data(), reason=st.sampled_from(("user", "timeout", "refunded")))
    def ask_to_cancel(self, data: st.DataObject, reason: str) -> None:
        self.ask(one_of(data, list(self.orders.values())), reason)

    def ask(self, order: Order, reason: str) -> None:
        """Ask payments to end an order, where its service asks at all; the deadline task asks again then."""
        askable = {OrderStatus.NEW}
        if reason != "timeout" or order.order_id in self.cancellation_reason:
            askable |= {OrderStatus.FINISHED}
        if order.status in askable:
            self.cancellation_reason.add(order.order_id)
            self.questions.send(CancelPayment(order.order_id, order.user_id, reason))

    # Deliveries

    @precondition(lambda self: self.questions.unread)
    @rule(data=st.data())
    def deliver_question(self, data: st.DataObject) -> None:
        self.handle_question(one_of(data, range(len(self.questions.unread))))

    def handle_question(self, place: int) -> None:
        """Let payments handle an unread question."""
        number = self.questions.claim(place)
        if number is None:
            return
        asks = self.questions.sent[number]
        wallet, before = self.wallets[asks.user_id], self.payments.get(asks.order_id)
        decided = settle(wallet, before, asks, f"message-{number}")
        assert (decided.wallet == wallet) == (decided.transfer is None), "only money changes a wallet here"
        if before is None and isinstance(asks, PayOrder):
            assert (decided.payment.status is PaymentStatus.CAPTURED) == can_pay(wallet, asks)
        self.ledger += [decided.transfer] if decided.transfer else []
        self.keep(asks.user_id, decided.wallet)
        self.payments[asks.order_id] = decided.payment
        outcome = PaymentOutcome[decided.payment.status.name]
        self.answers.send(Answer(asks.order_id, outcome, decided.payment.reason))

    @precondition(lambda self: self.answers.unread)
    @rule(data=st.data())
    def deliver_answer(self, data: st.DataObject) -> None:
        self.handle_answer(one_of(data, range(len(self.answers.unread))))

    def handle_answer(self, place: int) -> None:
        """Let orders handle an unread answer."""
        number = self.answers.claim(place)
        if number is None:
            return
        answer = self.answers.sent[number]
        before = self.orders[answer.order_id]
        after = record_outcome(before, answer.outcome, answer.reason)
        if after is not before:
            self.orders[answer.order_id] = after
            self.histories[answer.order_id].append(after)

    # Faults

    @precondition(lambda self: self.questions.sent)
    @rule(data=st.data(), is_new=st.booleans())
    def repeat_question(self, data: st.DataObject, is_new: bool) -> None:
        number = one_of(data, range(len(self.questions.sent)))
        if is_new:
            self.questions.send(self.questions.sent[number])
        else:
            self.questions.unread.append(number)

    @precondition(lambda self: self.answers.sent)
    @rule(data=st.data())
    def repeat_answer(self, data: st.DataObject) -> None:
        self.answers.unread.append(one_of(data, range(len(self.answers.sent))))

    @precondition(lambda self: self.questions.unread)
    @rule(data=st.data())
    def lose_question(self, data: st.DataObject) -> None:
        self.questions.unread.pop(one_of(data, range(len(self.questions.unread))))

    @precondition(lambda self: self.answers.unread)
    @rule(data=st.data())
    def lose_answer(self, data: st.DataObject) -> None:
        self.answers.unread.pop(one_of(data, range(len(self.answers.unread))))

    # Promises

    @invariant()
    def balance_is_the_sum_of_the_wallets_legs_and_never_below_zero(self) -> None:
        for user, wallet in self.wallets.items():
            legs = sum(moved.wallet_change_minor for moved in self.ledger if moved.user_id == user)
            assert wallet.balance_minor == legs >= 0

    @invariant()
    def all_accounts_of_the_ledger_sum_to_zero(self) -> None:
        totals = dict.fromkeys(LedgerAccount, 0)
        for leg in (leg for moved in self.ledger for leg in moved.legs):
            totals[leg.account] += leg.amount_minor
        assert sum(totals.values()) == 0
        assert totals[LedgerAccount.SALES] + totals[LedgerAccount.REFUNDS] >= 0

    @invariant()
    def order_is_captured_once_and_refunded_once_and_as_its_payment_says(self) -> None:
        moved: dict[str, list[TransferKind]] = defaultdict(list)
        for transfer in self.ledger:
            if transfer.order_id is not None:
                moved[transfer.order_id].append(transfer.kind)
                assert abs(transfer.wallet_change_minor) == self.orders[transfer.order_id].amount_minor
        for order_id, payment in self.payments.items():
            assert (
                moved[order_id]
                == {
                    PaymentStatus.REFUSED: [],
                    PaymentStatus.CAPTURED: [TransferKind.CAPTURE],
                    PaymentStatus.REFUNDED: [TransferKind.CAPTURE, TransferKind.REFUND],
                }[payment.status]
            )

    @invariant()
    def order_says_what_its_payment_said(self) -> None:
        for order_id, order in self.orders.items():
            if order.status is not OrderStatus.NEW:
                assert self.payments[order_id].status in ANSWERED_BY[order.status]

    @invariant()
    def versions_and_feed_numbers_have_no_gap(self) -> None:
        for user, feed in self.wallet_feeds.items():
            assert feed == list(range(1, len(feed) + 1))
            assert self.wallets[user].version == len(feed)
        for history in self.histories.values():
            assert [order.version for order in history] == list(range(1, len(history) + 1))
            assert all(order.status is not OrderStatus.CANCELLED for order in history[:-1])

    def teardown(self) -> None:
        """Let everything be read and asked again: what was lost comes in order, and both services agree."""
        self.read_all()
        for order in list(self.orders.values()):
            self.ask(order, "timeout")
        self.read_all()
        for order_id, order in self.orders.items():
            assert order.status is not OrderStatus.NEW
            assert self.is_refunded(order) <= (order.status is OrderStatus.CANCELLED)
            assert (self.payments[order_id].status is PaymentStatus.CAPTURED) == (
                order.status is OrderStatus.FINISHED
            )
        self.balance_is_the_sum_of_the_wallets_legs_and_never_below_zero()
        self.order_is_captured_once_and_refunded_once_and_as_its_payment_says()

    def is_refunded(self, order: Order) -> bool:
        """Return whether the order's money went back."""
        return self.payments[order.order_id].status is PaymentStatus.REFUNDED

    def read_all(self) -> None:
        """Let both services read on until nothing is left."""
        while self.questions.unread:
            self.handle_question(0)
        while self.answers.unread:
            self.handle_answer(0)


def can_pay(wallet: Wallet, order: PayOrder) -> bool:
    """Return whether the order can be paid: from an open, unfrozen account with enough of its currency."""
    is_usable = wallet.currency == order.currency and not wallet.is_closed and not wallet.is_frozen
    return is_usable and wallet.balance_minor >= order.amount_minor


def one_of(data: st.DataObject, choices: Sequence[T]) -> T:
    """Draw one of what there is now."""
    return data.draw(st.sampled_from(choices))


TestShop = Shop.TestCase
TestShop.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
