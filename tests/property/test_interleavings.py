"""Walk every interleaving of pay, cancel, timeout and faults of one order, over the pure domain.

The walk is exhaustive within its bounds. The user orders and may ask for the cancellation, the deadline task
may ask, two services handle what their topics bring, and faults befall them: a message is published again, a
question comes again under a new id, a message is lost or comes late. Handling always leaves less to handle,
so every state comes to rest; there the deadline task asks once more about an order that is NEW, or that
somebody wanted ended before, and the end is lawful.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple, Protocol

import pytest

from eshop.domain.ledger import TransferKind
from eshop.domain.order import Order, OrderStatus, PaymentOutcome, record_outcome
from eshop.domain.payment import CancelPayment, Payment, PaymentStatus, PayOrder, Settlement, settle
from eshop.domain.wallet import Wallet, close_wallet, set_frozen

AMOUNT = 70
PLACED = Order("order", "ann", AMOUNT, "USD")
ORDER = PayOrder("order", "ann", AMOUNT, "USD")
CANCEL = {reason: CancelPayment("order", "ann", reason) for reason in ("user", "timeout")}


class Bounds(NamedTuple):
    """How often each actor acts in one interleaving, and how many faults of any kinds befall it."""

    user_cancels: int
    timeouts: int
    faults: int
    wallet_changes: int = 0


WALLETS = {
    "enough": Wallet("ann", 2, 100, "USD"),
    "exactly enough": Wallet("ann", 2, AMOUNT, "USD"),
    "too little": Wallet("ann", 2, AMOUNT - 1, "USD"),
    "no account": Wallet("ann"),
    "closed": Wallet("ann", 3, 0, "USD", is_closed=True),
    "frozen": Wallet("ann", 3, 100, "USD", is_frozen=True),
    "other currency": Wallet("ann", 2, 100, "EUR"),
}


class End(StrEnum):
    """How an order may end."""

    FINISHED = "paid and FINISHED"
    UNCHARGED = "CANCELLED and not charged"
    REFUNDED = "CANCELLED and refunded"


class Asked(NamedTuple):
    """A message of the orders topic; ``number`` is its id."""

    number: int
    question: PayOrder | CancelPayment


class Answered(NamedTuple):
    """A message of the payments topic; ``number`` is its id."""

    number: int
    outcome: PaymentOutcome
    reason: str | None


class State(NamedTuple):
    """All that is, in both services and on both topics: what the walk remembers and compares."""

    wallet: Wallet
    order: Order | None = None
    payment: Payment | None = None
    orders_topic: tuple[Asked, ...] = ()  # every message ever sent; the number is the place
    payments_topic: tuple[Answered, ...] = ()
    to_payments: tuple[int, ...] = ()  # numbers of messages still to be read, in order
    to_orders: tuple[int, ...] = ()
    payments_inbox: frozenset[int] = frozenset()
    orders_inbox: frozenset[int] = frozenset()
    moved: tuple[TransferKind, ...] = ()
    user_cancels: int = 0
    timeouts: int = 0
    faults: int = 0
    wallet_changes: int = 0


class Settles(Protocol):
    """How a payment is decided."""

    def __call__(
        self, wallet: Wallet, payment: Payment | None, message: PayOrder | CancelPayment, transfer_id: str
    ) -> Settlement: ...


@dataclass(frozen=True)
class Rules:
    """The decisions that are walked: the domain's, unless a test breaks a cell."""

    settle: Settles = settle
    record_outcome: Callable[[Order, PaymentOutcome, str | None], Order] = record_outcome


def asked(state: State, question: PayOrder | CancelPayment) -> State:
    """Send a question to payments, under a new id."""
    number = len(state.orders_topic)
    return state._replace(
        orders_topic=(*state.orders_topic, Asked(number, question)), to_payments=(*state.to_payments, number)
    )


def answered(state: State, payment: Payment) -> State:
    """Send the payment's outcome to orders, under a new id."""
    number = len(state.payments_topic)
    answer = Answered(number, PaymentOutcome[payment.status.name], payment.reason)
    return state._replace(
        payments_topic=(*state.payments_topic, answer), to_orders=(*state.to_orders, number)
    )


def payments_handles(state: State, rules: Rules) -> State:
    """Handle the next message of the orders topic, as the handler does: claim, decide, record, answer."""
    number, *rest = state.to_payments
    read = state._replace(to_payments=tuple(rest))
    if number in state.payments_inbox:
        return read
    question = state.orders_topic[number].question
    decided = rules.settle(state.wallet, state.payment, question, str(number))
    moved = () if decided.transfer is None else (decided.transfer.kind,)
    assert decided.wallet.version == state.wallet.version + len(moved), "a wallet's versions grow by 1"
    return answered(
        read._replace(
            wallet=decided.wallet,
            payment=decided.payment,
            moved=(*state.moved, *moved),
            payments_inbox=state.payments_inbox | {number},
        ),
        decided.payment,
    )


def orders_handles(state: State, rules: Rules) -> State:
    """Handle the next message of the payments topic."""
    number, *rest = state.to_orders
    read = state._replace(to_orders=tuple(rest))
    if number in state.orders_inbox:
        return read
    answer = state.payments_topic[number]
    before = state.order
    assert before is not None, "nobody answers about an order that is not there"
    after = rules.record_outcome(before, answer.outcome, answer.reason)
    if after is not before:
        assert before.status is not OrderStatus.CANCELLED, "CANCELLED never changes"
        assert after.version == before.version + 1, "an order's versions grow by 1"
    return read._replace(order=after, orders_inbox=state.orders_inbox | {number})


def handled(state: State, rules: Rules) -> Iterator[State]:
    """Yield what follows when a service reads on; there is less to read on the way to rest each time."""
    if state.to_payments:
        yield payments_handles(state, rules)
    if state.to_orders:
        yield orders_handles(state, rules)


def acted(state: State, bounds: Bounds) -> Iterator[State]:
    """Yield what follows when the user or the deadline task acts."""
    if state.order is None:
        yield asked(state._replace(order=PLACED), ORDER)
        return
    if state.order.status is not OrderStatus.CANCELLED and state.user_cancels < bounds.user_cancels:
        yield asked(state._replace(user_cancels=state.user_cancels + 1), CANCEL["user"])
    if state.order.status is OrderStatus.NEW and state.timeouts < bounds.timeouts:
        yield asked(state._replace(timeouts=state.timeouts + 1), CANCEL["timeout"])


def faulted(state: State, bounds: Bounds) -> Iterator[State]:
    """Yield what follows a fault."""
    if state.faults == bounds.faults:
        return
    faulty = state._replace(faults=state.faults + 1)
    for number, message in enumerate(state.orders_topic):
        yield faulty._replace(to_payments=(*state.to_payments, number))  # published again
        yield asked(faulty, message.question)  # asked again
    for number in range(len(state.payments_topic)):
        yield faulty._replace(to_orders=(*state.to_orders, number))
    if state.to_payments:
        first, *rest = state.to_payments
        yield faulty._replace(to_payments=tuple(rest))  # lost
        yield faulty._replace(to_payments=(*rest, first))  # comes late
    if state.to_orders:
        first, *rest = state.to_orders
        yield faulty._replace(to_orders=tuple(rest))
        yield faulty._replace(to_orders=(*rest, first))


def wallet_changed(state: State, bounds: Bounds) -> Iterator[State]:
    """Yield what follows when the account is closed or frozen after the capture."""
    if state.wallet_changes < bounds.wallet_changes and TransferKind.CAPTURE in state.moved:
        for after in (close_wallet(state.wallet), set_frozen(state.wallet, True)):
            if isinstance(after, Wallet) and after is not state.wallet:
                yield state._replace(wallet=after, wallet_changes=state.wallet_changes + 1)


def assert_money(state: State, start: Wallet) -> None:
    """Assert that the wallet has what it had, less the capture, plus the refund: one of each at most."""
    captures, refunds = (state.moved.count(kind) for kind in (TransferKind.CAPTURE, TransferKind.REFUND))
    assert refunds <= captures <= 1, "at most one capture and one refund"
    left = start.balance_minor - AMOUNT * (captures - refunds)
    assert state.wallet.balance_minor == left, "balance = start - captures + refunds"


def at_rest(state: State, rules: Rules) -> State:
    """Let both services read on until nothing is left."""
    while (after := next(handled(state, rules), None)) is not None:
        state = after
    return state


def end_of(state: State, rules: Rules) -> End:
    """Return how a state of rest ends, after the deadline task's cancellation requests for open orders."""
    assert state.order is not None
    is_ending = state.user_cancels + state.timeouts > 0
    if state.order.status is OrderStatus.NEW or (
        is_ending and state.order.status is not OrderStatus.CANCELLED
    ):
        state = at_rest(asked(state, CANCEL["timeout"]), rules)
    assert state.order is not None
    assert state.payment is not None
    match state.order.status, state.moved:
        case OrderStatus.FINISHED, (TransferKind.CAPTURE,):
            return End.FINISHED
        case OrderStatus.CANCELLED, ():
            return End.UNCHARGED
        case OrderStatus.CANCELLED, (TransferKind.CAPTURE, TransferKind.REFUND):
            return End.REFUNDED
    raise AssertionError(f"unlawful end: {state.order}, {state.payment}, {state.moved}")


@dataclass
class Walk:
    """A depth-first walk that remembers, for each state, in how many ways it goes on to which end."""

    start: Wallet
    bounds: Bounds
    rules: Rules = field(default_factory=Rules)
    known: dict[State, Counter[End]] = field(default_factory=dict)

    def ends(self) -> Counter[End]:
        """Return how many interleavings end in which way; raise AssertionError where one is unlawful."""
        return self._ends_from(State(self.start))

    def _ends_from(self, state: State) -> Counter[End]:
        if state in self.known:
            return self.known[state]
        assert_money(state, self.start)
        ends: Counter[End] = Counter()
        if state.order is not None and not state.to_payments and not state.to_orders:
            ends[end_of(state, self.rules)] += 1
        for after in self._next(state):
            ends.update(self._ends_from(after))
        self.known[state] = ends
        return ends

    def _next(self, state: State) -> Iterator[State]:
        for after in handled(state, self.rules):
            assert left_to_read(after) < left_to_read(state), "reading on comes to rest"
            yield after
        yield from acted(state, self.bounds)
        yield from faulted(state, self.bounds)
        yield from wallet_changed(state, self.bounds)


def left_to_read(state: State) -> int:
    """Return a bound on how often the services still read: a question causes one answer at the most."""
    return 2 * len(state.to_payments) + len(state.to_orders)


#: Enough to reach every kind of end.
FEW = Bounds(1, 1, 2)
#: A wallet that pays sees every end, the other ones only one.
WALKS = {
    "the account closed or frozen after the capture": ("exactly enough", Bounds(1, 1, 2, wallet_changes=1)),
    "two cancellations": ("enough", Bounds(2, 1, 2)),
    "two timeouts": ("enough", Bounds(1, 2, 2)),
    "three faults": ("enough", Bounds(1, 1, 3)),
    **{name: (name, FEW) for name in WALLETS if "enough" not in name},
}


@pytest.mark.parametrize("name", WALKS)
def test_every_interleaving_ends_lawfully(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    wallet, bounds = WALKS[name]
    walk = Walk(WALLETS[wallet], bounds)
    ends = walk.ends()
    with capsys.disabled():
        sys.stdout.write(f"\n{name}: {len(walk.known):,} states, {ends.total():,} interleavings\n")
        sys.stdout.writelines(f"  {count:>15,} {end}\n" for end, count in ends.most_common())
    assert set(ends) == (set(End) if "enough" in wallet else {End.UNCHARGED})


def tombstone_ignored(
    wallet: Wallet, payment: Payment | None, message: PayOrder | CancelPayment, transfer_id: str
) -> Settlement:
    is_tombstone = payment is not None and payment.amount_minor is None
    return settle(wallet, None if is_tombstone else payment, message, transfer_id)


def capture_kept(
    wallet: Wallet, payment: Payment | None, message: PayOrder | CancelPayment, transfer_id: str
) -> Settlement:
    return settle(wallet, payment, message if payment is None else ORDER, transfer_id)


def captured_each_time(
    wallet: Wallet, payment: Payment | None, message: PayOrder | CancelPayment, transfer_id: str
) -> Settlement:
    return settle(wallet, None if isinstance(message, PayOrder) else payment, message, transfer_id)


def refunded_each_time(
    wallet: Wallet, payment: Payment | None, message: PayOrder | CancelPayment, transfer_id: str
) -> Settlement:
    if payment is not None and payment.status is PaymentStatus.REFUNDED:
        payment = replace(payment, status=PaymentStatus.CAPTURED)
    return settle(wallet, payment, message, transfer_id)


def refused_without_tombstone(
    wallet: Wallet, payment: Payment | None, message: PayOrder | CancelPayment, transfer_id: str
) -> Settlement:
    if payment is not None and payment.status is PaymentStatus.REFUSED:
        payment = None
    return settle(wallet, payment, message, transfer_id)


def one_unit_kept(
    wallet: Wallet, payment: Payment | None, message: PayOrder | CancelPayment, transfer_id: str
) -> Settlement:
    decided = settle(wallet, payment, message, transfer_id)
    if decided.transfer is None or decided.transfer.kind is not TransferKind.REFUND:
        return decided
    return replace(decided, wallet=replace(decided.wallet, balance_minor=decided.wallet.balance_minor - 1))


@pytest.mark.parametrize(
    "broken",
    [
        tombstone_ignored,
        capture_kept,
        captured_each_time,
        refunded_each_time,
        refused_without_tombstone,
        one_unit_kept,
    ],
)
def test_walk_goes_red_where_a_payment_is_decided_wrongly(broken: Settles) -> None:
    walk = Walk(WALLETS["enough"], FEW, Rules(settle=broken))
    with pytest.raises(AssertionError):  # an unlawful end, or one that nobody reaches any more
        assert set(walk.ends()) == set(End)


CELLS = {
    "NEW, refunded": (OrderStatus.NEW, PaymentOutcome.REFUNDED, OrderStatus.FINISHED),
    "NEW, refused": (OrderStatus.NEW, PaymentOutcome.REFUSED, OrderStatus.FINISHED),
    "NEW, refused: nothing": (OrderStatus.NEW, PaymentOutcome.REFUSED, None),
    "NEW, refunded: nothing": (OrderStatus.NEW, PaymentOutcome.REFUNDED, None),
    "NEW, captured: nothing": (OrderStatus.NEW, PaymentOutcome.CAPTURED, None),
    "NEW, captured": (OrderStatus.NEW, PaymentOutcome.CAPTURED, OrderStatus.CANCELLED),
    "FINISHED, captured": (OrderStatus.FINISHED, PaymentOutcome.CAPTURED, OrderStatus.CANCELLED),
    "FINISHED, refunded: nothing": (OrderStatus.FINISHED, PaymentOutcome.REFUNDED, None),
    "CANCELLED, captured": (OrderStatus.CANCELLED, PaymentOutcome.CAPTURED, OrderStatus.FINISHED),
    "CANCELLED, refused": (OrderStatus.CANCELLED, PaymentOutcome.REFUSED, OrderStatus.CANCELLED),
    "CANCELLED, refunded": (OrderStatus.CANCELLED, PaymentOutcome.REFUNDED, OrderStatus.CANCELLED),
}


@pytest.mark.parametrize("cell", CELLS)
def test_walk_goes_red_where_an_outcome_is_recorded_wrongly(cell: str) -> None:
    status, heard, wrong = CELLS[cell]

    def broken(order: Order, outcome: PaymentOutcome, reason: str | None) -> Order:
        if (order.status, outcome) != (status, heard):
            return record_outcome(order, outcome, reason)
        if wrong is None:
            return order
        why = "user" if wrong is OrderStatus.CANCELLED else None
        return replace(order, status=wrong, reason=why, version=order.version + 1)

    with pytest.raises(AssertionError):
        assert set(Walk(WALLETS["enough"], FEW, Rules(record_outcome=broken)).ends()) == set(End)


def test_walk_goes_red_where_a_version_is_skipped() -> None:
    def broken(order: Order, outcome: PaymentOutcome, reason: str | None) -> Order:
        after = record_outcome(order, outcome, reason)
        return after if after is order else replace(after, version=after.version + 1)

    with pytest.raises(AssertionError, match="versions grow by 1"):
        Walk(WALLETS["enough"], FEW, Rules(record_outcome=broken)).ends()
