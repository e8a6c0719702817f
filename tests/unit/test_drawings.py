"""The drawings beside the classes, the diagrams and tables of the docs, and the code: they say the same."""

import itertools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from eshop.domain.order import Order, OrderStatus, PaymentOutcome, record_outcome
from eshop.domain.payment import CancelPayment, Payment, PaymentStatus, PayOrder, settle
from eshop.domain.refusal import Refusal
from eshop.domain.wallet import Wallet, close_wallet, open_wallet, set_frozen, top_up

PAGE = (Path(__file__).parents[2] / "docs" / "states.md").read_text()
NONE, STAYS, IMPOSSIBLE = "(none)", "stays", "impossible"

#: What the code does with each state and message: states, refusals in backticks, or a word from above.
Table = dict[tuple[str, str], set[str]]
Moves = set[tuple[str, str, str]]

AMOUNT = 70
ORDER = PayOrder("order", "ann", AMOUNT, "USD")
CANCEL = CancelPayment("order", "ann", "user")
QUESTIONS: dict[str, PayOrder | CancelPayment] = {"order": ORDER, "cancel": CANCEL}


def order_table() -> Table:
    """Ask the code about every status and outcome."""
    return {
        (status.value, heard.value): {order_cell(status, heard)}
        for status in OrderStatus
        for heard in PaymentOutcome
    }


def order_cell(status: OrderStatus, heard: PaymentOutcome) -> str:
    """Return where an outcome brings an order."""
    reason = "user" if status is OrderStatus.CANCELLED else None
    before = Order("order", "ann", AMOUNT, "USD", status, reason)
    try:
        after = record_outcome(before, heard, None if heard is PaymentOutcome.CAPTURED else "timeout")
    except AssertionError:
        return IMPOSSIBLE
    return STAYS if after == before else after.status.value


WALLETS = (
    Wallet("ann"),
    *(
        Wallet("ann", 2, balance, "USD", is_closed=is_closed, is_frozen=is_frozen)
        for is_closed, is_frozen, balance in itertools.product((False, True), (False, True), (0, AMOUNT))
        if not (is_closed and balance)
    ),
)


def account_state(wallet: Wallet) -> str:
    """Return the account's state as the drawing names it."""
    if wallet.currency is None:
        return NONE
    return {(0, 0): "OPEN", (0, 1): "FROZEN", (1, 0): "CLOSED", (1, 1): "CLOSED_FROZEN"}[
        wallet.is_closed, wallet.is_frozen
    ]


def payment_of(status: PaymentStatus) -> Payment:
    """Return a payment that stands so."""
    reason = None if status is PaymentStatus.CAPTURED else "user"
    return Payment("order", "ann", status, AMOUNT, "USD", reason, 2, 0)


def payment_table() -> Table:
    """Ask the code about every payment and message, on every wallet it can meet."""
    table: Table = {}
    payments = (None, *(payment_of(status) for status in PaymentStatus))
    for payment, (name, message), wallet in itertools.product(payments, QUESTIONS.items(), WALLETS):
        if payment is not None and payment.status is not PaymentStatus.REFUSED and wallet.currency is None:
            continue  # what was captured came out of an account
        after = settle(wallet, payment, message, "transfer").payment
        cell = STAYS if after == payment else after.status.value
        table.setdefault((NONE if payment is None else payment.status.value, name), set()).add(cell)
    return table


def captured(wallet: Wallet) -> Wallet | Refusal:
    """Return the wallet after it paid an order, or why it did not."""
    decided = settle(wallet, None, ORDER, "transfer")
    if decided.payment.reason is not None:
        return Refusal(decided.payment.reason, "")
    return decided.wallet


def refunded(wallet: Wallet) -> Wallet:
    """Return the wallet after an order paid from it was cancelled."""
    return settle(wallet, payment_of(PaymentStatus.CAPTURED), CANCEL, "transfer").wallet


def topped_up(wallet: Wallet) -> Wallet | Refusal:
    """Return the wallet after money came in."""
    decided = top_up(wallet, AMOUNT, transfer_id="transfer", reference=None)
    return decided if isinstance(decided, Refusal) else decided[0]


ACCOUNT_MESSAGES: dict[str, Callable[[Wallet], Wallet | Refusal]] = {
    "open": lambda wallet: open_wallet(wallet, "USD"),
    "close": close_wallet,
    "freeze": lambda wallet: set_frozen(wallet, True),
    "unfreeze": lambda wallet: set_frozen(wallet, False),
    "top_up": topped_up,
    "capture": captured,
    "refund": refunded,
}


def account_table() -> Table:
    """Ask the code about every account, empty and not, and every message."""
    table: Table = {}
    for wallet, (name, effect) in itertools.product(WALLETS, ACCOUNT_MESSAGES.items()):
        table.setdefault((account_state(wallet), name), set()).add(account_cell(wallet, effect))
    return table


def account_cell(wallet: Wallet, effect: Callable[[Wallet], Wallet | Refusal]) -> str:
    """Return where a message brings an account."""
    try:
        after = effect(wallet)
    except AssertionError:
        return IMPOSSIBLE
    if isinstance(after, Refusal):
        return f"`{after.code}`"
    if account_state(after) != account_state(wallet):
        return account_state(after)
    assert after == wallet or after.balance_minor != wallet.balance_minor, (
        "what stays is the same, money apart"
    )
    return STAYS


@dataclass(frozen=True)
class Drawn:
    """Something that has states: where it is drawn, and what the code says."""

    beside: type
    table: Callable[[], Table]
    created: frozenset[tuple[str, str, str]] = frozenset()  # moves that are no function of the table


DRAWN = {
    "Order": Drawn(OrderStatus, order_table, frozenset({(NONE, "create", "NEW")})),
    "Payment": Drawn(PaymentStatus, payment_table),
    "Account": Drawn(Wallet, account_table),
}
each_drawn = pytest.mark.parametrize("name", DRAWN)


def moves_of(drawn: Drawn) -> Moves:
    """Return the code's moves: what changes a state."""
    return {
        (before, message, after)
        for (before, message), cells in drawn.table().items()
        for after in cells
        if after not in (STAYS, IMPOSSIBLE) and not after.startswith("`")
    } | drawn.created


def drawn_beside(of: type) -> list[tuple[str, str, str]]:
    """Read the lines ``BEFORE --message--> AFTER`` of a docstring."""
    return re.findall(r"^\s*(\S+)\s+--(\w+)-->\s+(\S+)", of.__doc__ or "", re.MULTILINE)


def section(name: str) -> str:
    """Return the page's section of that name."""
    found = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"the page has a section {name}"
    return found[1]


def diagram(name: str) -> list[tuple[str, str, str]]:
    """Read a section's mermaid diagram."""
    block = re.search(r"```mermaid\nstateDiagram-v2\n(.*?)```", section(name), re.DOTALL)
    assert block, f"section {name} has a diagram"
    lines = [re.fullmatch(r"\s+(\S+) --> (\S+): (\w+)", line) for line in block[1].splitlines()]
    assert all(lines), "every line of the diagram is a move"
    return [(line[1].replace("[*]", NONE), line[3], line[2]) for line in lines if line]


def page_table(name: str) -> Table:
    """Read a section's table."""
    rows = [
        [cell.strip() for cell in line.strip("|\n ").split(" | ")]
        for line in section(name).splitlines()
        if line.startswith("|")
    ]
    (_, *messages), _, *body = rows
    return {
        (before, message): set(cell.split(", "))
        for before, *cells in body
        for message, cell in zip(messages, cells, strict=True)
    }


def without_repeats(moves: Iterable[tuple[str, str, str]]) -> Moves:
    """Return the moves as a set; a line that stands twice is a slip."""
    listed = list(moves)
    assert len(listed) == len(set(listed)), "no move is drawn twice"
    return set(listed)


@each_drawn
def test_drawing_beside_the_class_is_what_the_code_does(name: str) -> None:
    assert without_repeats(drawn_beside(DRAWN[name].beside)) == moves_of(DRAWN[name])


@each_drawn
def test_diagram_of_the_docs_is_what_the_code_does(name: str) -> None:
    assert without_repeats(diagram(name)) == moves_of(DRAWN[name])


@each_drawn
def test_table_of_the_docs_is_total_and_what_the_code_does(name: str) -> None:
    assert page_table(name) == DRAWN[name].table()


def test_every_drawn_class_has_its_section_and_every_section_with_a_diagram_is_compared() -> None:
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
    assert {text.split("\n")[0] for text in sections if "```mermaid" in text} == set(DRAWN)
