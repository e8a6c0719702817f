"""Customers: they shop at both gateways, misbehave as clients do, and write down every answer they got."""

import asyncio
import json
import random
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import aiohttp

CUSTOMERS = 300
#: Requests under way at once: beyond that customers wait before they ask.
IN_FLIGHT_MAX = 250
ATTEMPT_SECONDS_MAX = 12.0
#: Within that every request must have got a definite answer, whatever is broken meanwhile.
ANSWER_SECONDS_MAX = 180.0
#: When it is behind, the load catches up at no more than this multiple of its rate.
CATCH_UP = 3.0
TOP_UP_MINOR = 260
FIRST_MONEY_MINOR = 3_000
TOO_MUCH_MINOR = 900_000_000
REMEMBERED_MAX = 20
#: "Come again", as the API says it; 0 is no answer at all.
AGAIN = frozenset({0, 429, 503, 504})

Answer = tuple[int, Any]


class Answers:
    """Every definite answer, as lines of JSON for the audit; and what contradicted another answer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO = path.open("w")
        self.count: Counter[str] = Counter()
        self.violations: list[str] = []

    def order(self, user: str, key: str | None, status: int, body: Any) -> None:
        """Write down what was said about an order that was asked for."""
        line = {
            "status": status,
            "order_id": body.get("order_id") if isinstance(body, dict) else None,
            "idempotency_key": key,
            "user_id": user,
        }
        self._file.write(json.dumps(line) + "\n")
        self.count[f"answers {status}"] += 1

    def broken(self, what: str) -> None:
        """Write down what must never be."""
        self.violations.append(what)

    def close(self) -> None:
        """Have everything on disk."""
        self._file.close()


@dataclass
class Customer:
    """One user, who has a few orders in mind."""

    user_id: str
    recent: deque[str] = field(default_factory=lambda: deque(maxlen=REMEMBERED_MAX))
    is_open: bool = False
    requests: int = 0


class Load:
    """Orders at a bounded rate, until they are enough.

    ``placed`` counts orders that were answered with 201 for the first time.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        gateways: list[str],
        answers: Answers,
        rng: random.Random,
        *,
        customers: int = CUSTOMERS,
    ) -> None:
        self._session = session
        self._gateways = gateways
        self._answers = answers
        self._rng = rng
        self._gate = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._tasks: set[asyncio.Task[None]] = set()
        prefix = f"customer-{rng.randrange(16**8):08x}"
        self.customers = [Customer(f"{prefix}-{number}") for number in range(customers)]
        self.placed = 0
        self.longest_seconds = 0.0
        self._kinds = {
            self._order: 76,
            self._order_twice_at_once: 6,
            self._order_and_ask_again: 5,
            self._break_off: 4,
            self._overdraw: 2,
            self._cancel: 3,
            self._top_up: 4,
        }

    async def open_wallets(self) -> None:
        """Give every customer a wallet with some money."""
        await asyncio.gather(*(self._open(customer) for customer in self.customers))

    async def run(self, per_second: float, stop: asyncio.Event) -> None:
        """Have customers act until told to stop; then let each one finish what it is at."""
        begun, due, last = time.monotonic(), 0.0, time.monotonic()
        while not stop.is_set():
            now = time.monotonic()
            # Behind the clock it hurries, but not without bound.
            behind = (now - begun) * per_second - self.placed > per_second
            due += (now - last) * per_second * (CATCH_UP if behind else 1.0)
            due = min(due, per_second * CATCH_UP)
            last = now
            while due >= 1.0 and not stop.is_set():
                due -= 1.0
                await self._gate.acquire()
                self._spawn()
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 0.02)
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    def _spawn(self) -> None:
        (kind,) = self._rng.choices(list(self._kinds), list(self._kinds.values()))
        customer = self._rng.choice(self.customers)

        async def act() -> None:
            try:
                await kind(customer)
            except TimeoutError:
                self._answers.broken(f"{kind.__name__[1:]} of {customer.user_id} was never answered")

        task = asyncio.create_task(act())
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._gate.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._answers.broken(f"a customer fell over: {error!r}")

    async def _open(self, customer: Customer) -> None:
        status, body = await self._insist(customer, "/accounts", {}, "open")
        if status != 201:
            self._answers.broken(f"opening {customer.user_id}: {status} {body}")
        await self._insist(customer, "/accounts/me/top-ups", {"amount_minor": FIRST_MONEY_MINOR}, "first")

    async def _order(self, customer: Customer) -> None:
        key, amount = self._new_key(customer), self._amount()
        self._accept(customer, key, await self._place(customer, key, amount))

    async def _overdraw(self, customer: Customer) -> None:
        key = self._new_key(customer)
        self._accept(customer, key, await self._place(customer, key, TOO_MUCH_MINOR))
        self._answers.count["overdrawn"] += 1

    async def _order_and_ask_again(self, customer: Customer) -> None:
        """Retry with the key of an order that is there; then use the key for something else."""
        key, amount = self._new_key(customer), self._amount()
        first = await self._place(customer, key, amount)
        self._accept(customer, key, first)
        again = await self._place(customer, key, amount)
        self._must_be_one(customer, key, first, again)
        status, _ = await self._place(customer, key, amount + 1)
        if status != 422:
            self._answers.broken(f"{customer.user_id} {key}: another body under the key got {status}")
        self._answers.count["asked again"] += 1

    async def _order_twice_at_once(self, customer: Customer) -> None:
        key, amount = self._new_key(customer), self._amount()
        one, other = await asyncio.gather(
            self._place(customer, key, amount, at=0), self._place(customer, key, amount, at=1)
        )
        self._accept(customer, key, one)
        self._must_be_one(customer, key, one, other)
        self._answers.count["posted twice at once"] += 1

    async def _break_off(self, customer: Customer) -> None:
        """Leave in mid-request, and come back with the same key."""
        key, amount = self._new_key(customer), self._amount()
        request = asyncio.create_task(self._post(customer, "/orders", {"amount_minor": amount}, key, 0))
        await asyncio.sleep(self._rng.uniform(0.0, 0.02))
        request.cancel()
        with suppress(asyncio.CancelledError):
            await request
        self._accept(customer, key, await self._place(customer, key, amount, at=1))
        self._answers.count["broken off"] += 1

    async def _cancel(self, customer: Customer) -> None:
        if not customer.recent:
            return
        order_id = self._rng.choice(customer.recent)
        key = self._new_key(customer)
        status, body = await self._insist(customer, f"/orders/{order_id}/cancel", None, key)
        if status not in (200, 202):
            self._answers.broken(f"cancelling {order_id}: {status} {body}")
        self._answers.count["cancelled"] += 1

    async def _top_up(self, customer: Customer) -> None:
        key = self._new_key(customer)
        status, body = await self._insist(
            customer, "/accounts/me/top-ups", {"amount_minor": TOP_UP_MINOR}, key
        )
        if status != 201:
            self._answers.broken(f"topping up {customer.user_id}: {status} {body}")
        self._answers.count["topped up"] += 1

    async def _place(self, customer: Customer, key: str, amount_minor: int, at: int | None = None) -> Answer:
        status, body = await self._insist(customer, "/orders", {"amount_minor": amount_minor}, key, at)
        # A refusal for another body says nothing about the key: the order it was first used for is there.
        self._answers.order(customer.user_id, None if status == 422 else key, status, body)
        return status, body

    def _accept(self, customer: Customer, key: str, answer: Answer) -> None:
        status, body = answer
        if status != 201:
            self._answers.broken(f"{customer.user_id} {key}: {status} {body}")
            return
        self.placed += 1
        customer.recent.append(body["order_id"])

    def _must_be_one(self, customer: Customer, key: str, one: Answer, other: Answer) -> None:
        if (one[0], one[1].get("order_id")) != (other[0], other[1].get("order_id")):
            self._answers.broken(f"{customer.user_id} {key}: two answers to one key: {one} and {other}")

    async def _insist(
        self, customer: Customer, path: str, body: Any, key: str, at: int | None = None
    ) -> Answer:
        """Ask until there is a definite answer, at both gateways in turn."""
        at = self._rng.randrange(2) if at is None else at
        begun = time.monotonic()
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            while True:
                status, answer = await self._post(customer, path, body, key, at)
                running = status == 409 and answer.get("code") == "idempotency-in-progress"
                if status not in AGAIN and not running:
                    self.longest_seconds = max(self.longest_seconds, time.monotonic() - begun)
                    return status, answer
                self._answers.count[f"came again after {status or 'no answer'}"] += 1
                at += 1
                await asyncio.sleep(self._rng.uniform(0.2, 1.0))

    async def _post(self, customer: Customer, path: str, body: Any, key: str, at: int) -> Answer:
        """Return status and body; status 0 where no answer came."""
        url = f"{self._gateways[at % len(self._gateways)]}/api/v1{path}"
        headers = {"X-User-Id": customer.user_id, "Idempotency-Key": key}
        try:
            async with (
                asyncio.timeout(ATTEMPT_SECONDS_MAX),
                self._session.post(url, json=body, headers=headers)
                if body is not None
                else self._session.post(url, headers=headers) as answer,
            ):
                text = await answer.read()
                if answer.status == 500:
                    self._answers.broken(f"{path} answered 500: {text[:300]!r}")
                    return 0, None
                return answer.status, json.loads(text) if text else {}
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError):
            return 0, {}

    def _new_key(self, customer: Customer) -> str:
        customer.requests += 1
        return f"request-{customer.requests}"

    def _amount(self) -> int:
        return self._rng.randrange(1, 21)
