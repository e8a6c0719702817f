"""The start of a new feed: the heads of both streams, or of the stream whose service answers.

See docs/adr/0021-a-gateway-that-can-serve-something-is-ready.md.
"""

import asyncio
import time

from eshop.cancellation import cancel_and_wait
from gateway.feed.frames import Position, Since, Stream
from gateway.feed.history import History
from gateway.http.problems import Problem

#: How long a feed is not opened because of the slower of the two services.
SLOWER_SECONDS_MAX = 2.0
CANCEL_SECONDS_MAX = 0.5
#: The largest delay of the services' clocks. A stream that joins late can begin with frames of this age.
SKEW_SECONDS_MAX = 5


async def known_heads(history: History, user_id: str) -> dict[Stream, int]:
    """Return the head of each stream whose service answers; raise the Problem if neither does."""
    loop = asyncio.get_running_loop()
    asked = {asyncio.create_task(history.heads(stream, [user_id])): stream for stream in Stream}
    heads: dict[Stream, int] = {}
    failure = Problem("unavailable")
    until: float | None = None
    pending = set(asked)
    try:
        while pending:
            left = None if until is None else until - loop.time()
            done, pending = await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                break
            for task in done:
                try:
                    (heads[asked[task]],) = task.result()
                    until = loop.time() + SLOWER_SECONDS_MAX
                except Problem as problem:
                    failure = problem
    finally:
        await cancel_and_wait(*pending, seconds_max=CANCEL_SECONDS_MAX)
    if not heads:
        raise failure
    return heads


def position_now(heads: dict[Stream, int]) -> Position:
    """Return the position of a feed without a cursor: later changes are after it in both streams.

    A stream without a known head starts at a time, which is turned into a number later. The later head would
    be wrong: changes in between would be skipped.
    """
    since = Since(int((time.time() - SKEW_SECONDS_MAX) * 1000))
    return Position(heads.get(Stream.ORDERS, since), heads.get(Stream.WALLET, since))
