"""Idempotency keys: a request that is repeated with its key gets the stored result, and has no second effect.

The order itself keeps the key of its creation. See docs/adr/0007-idempotency-keys.md.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from eshop.domain.refusal import Refusal
from eshop.store.requests import RequestKey, Requests

R = TypeVar("R")

KEY_REUSED = Refusal("idempotency-key-reused", "the key was used for another request")


@dataclass(frozen=True, slots=True)
class Result(Generic[R]):
    """The result of a request; ``replayed`` if an earlier request had the same key."""

    outcome: R | Refusal
    replayed: bool = False


async def once(
    requests: Requests,
    key: RequestKey | None,
    fingerprint: bytes,
    effect: Callable[[], Awaitable[R | Refusal]],
    *,
    store: Callable[[R], dict[str, Any]],
    restore: Callable[[dict[str, Any]], R],
) -> Result[R]:
    """Run the effect, unless an earlier request with the key has run it; the user is locked.

    Without a key the effect always runs. A refusal is not stored: a repeated request is decided again. A key
    with another fingerprint is refused.
    """
    if key is None:
        return Result(await effect())
    before = await requests.get(key)
    if before is not None:
        if before.fingerprint != fingerprint:
            return Result(KEY_REUSED)
        return Result(restore(before.answer), replayed=True)
    outcome = await effect()
    if not isinstance(outcome, Refusal):
        await requests.keep(key, fingerprint, store(outcome))
    return Result(outcome)
