"""Reading feeds over gRPC: the same for every service's feed."""

from collections.abc import Callable
from typing import TypeVar

from eshop.contracts.proto import shared_v1_pb2 as shared
from eshop.rpc.convert import bounded, check_user
from eshop.rpc.server import InvalidRequest
from eshop.store.feed import Feed
from eshop.store.rows import FeedRow
from eshop.store.unit_of_work import Store, UnitOfWork

ROWS_MAX = 500
USERS_MAX = 10_000


U = TypeVar("U", bound=UnitOfWork)
R = TypeVar("R", bound=FeedRow)


async def read_feed(
    store: Store[U], request: shared.ReadFeedRequest, feed_of: Callable[[U], Feed[R]]
) -> tuple[list[R], int]:
    """Return the history's rows after a number, and the user's last number."""
    check_user(request.user_id)

    async def read(uow: U) -> tuple[list[R], int]:
        # The head first: a change in between may make it larger, and is never missed.
        (head,) = await feed_of(uow).heads([request.user_id])
        rows = await feed_of(uow).read(
            request.user_id, request.after_feed_number, bounded(request.limit, ROWS_MAX)
        )
        return rows, max([head, *(row.feed_number for row in rows)])

    return await store.transact(read)


async def feed_heads(store: Store[U], request: shared.FeedHeadsRequest) -> shared.FeedHeadsReply:
    """Return the last number of each user."""
    if len(request.user_ids) > USERS_MAX:
        raise InvalidRequest(f"at most {USERS_MAX} users a call")
    for user_id in request.user_ids:
        check_user(user_id)
    heads = await store.read(lambda uow: uow.feed.heads(list(request.user_ids)))
    return shared.FeedHeadsReply(head_feed_numbers=heads)
