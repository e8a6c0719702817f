"""The DeadLetters servicer: every service that consumes messages serves it."""

from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import grpc
from grpc import aio

from eshop.contracts.envelope import UndecodableMessage
from eshop.contracts.limits import PAGE_MAX
from eshop.contracts.proto import dead_letters_v1_pb2 as pb
from eshop.contracts.proto.dead_letters_v1_pb2_grpc import DeadLettersServicer as Base
from eshop.handlers.parking import BURST_MAX, BURST_SECONDS, ERROR_CHARACTERS_MAX
from eshop.handlers.replay import (
    DISCARDED,
    PARKED,
    REPLAYED,
    Act,
    Acted,
    Handler,
    bytes_of,
    discard,
    headers_of,
    replay,
)
from eshop.rpc import convert
from eshop.rpc.convert import bounded, check_operator, check_text, uuid_text
from eshop.rpc.server import InvalidRequest
from eshop.store.faults import cause_of, is_poison
from eshop.store.rows import LetterRow
from eshop.store.unit_of_work import Store, UnitOfWork

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["DeadLetters"].full_name

CAUSE_CHARACTERS_MAX = 500
#: Rows of a page: a screen of an operator.
ERROR_SHOWN_CHARACTERS_MAX = 300
#: The id before every other.
_NO_ID = "00000000-0000-0000-0000-000000000000"

Context = aio.ServicerContext[Any, Any]
U = TypeVar("U", bound=UnitOfWork)


class DeadLettersServicer(Base, Generic[U]):
    """Serves the dead letters of one service, and replays them by the service's handler."""

    def __init__(self, store: Store[U], handler: Handler[U]) -> None:
        self._store = store
        self._handler = handler

    async def Summarize(self, request: pb.SummarizeRequest, context: Context) -> pb.Summary:  # noqa: N802
        """Count the dead letters by cause."""
        chosen = _chosen(request)
        groups = await self._store.read(lambda uow: uow.dead_letters.groups(*chosen))
        held = await self._store.read(lambda uow: uow.dead_letters.held(BURST_MAX, BURST_SECONDS))
        return pb.Summary(
            groups=[
                pb.Group(
                    cause=row.cause,
                    status=row.status,
                    count=row.letters,
                    first_parked_at=convert.timestamp(row.first_parked_at),
                    last_parked_at=convert.timestamp(row.last_parked_at),
                )
                for row in groups
            ],
            held=[
                pb.HeldPartition(topic=row.topic, partition=row.partition, parked=row.parked) for row in held
            ],
        )

    async def List(self, request: pb.ListRequest, context: Context) -> pb.ListReply:  # noqa: N802
        """Return a page of dead letters."""
        chosen = _chosen(request)
        limit = bounded(request.limit, PAGE_MAX)
        after_id = uuid_text(request.after_id or _NO_ID)
        if after_id is None:
            raise InvalidRequest("after_id is no UUID")
        found = await self._store.read(lambda uow: uow.dead_letters.page(*chosen, after_id, limit + 1))
        page = found[:limit]
        return pb.ListReply(
            dead_letters=[_short(row, ERROR_SHOWN_CHARACTERS_MAX) for row in page],
            next_id=page[-1].dead_letter_id if len(found) > limit else "",
        )

    async def Show(self, request: pb.ShowRequest, context: Context) -> pb.DeadLetterWhole:  # noqa: N802
        """Return one dead letter with its whole message."""

        dead_letter_id = uuid_text(request.dead_letter_id) or _NO_ID
        letter = await self._store.read(lambda uow: uow.dead_letters.get(dead_letter_id))
        if letter is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such dead letter")
        actions = await self._store.read(lambda uow: uow.operators.on_dead_letter(dead_letter_id))
        return pb.DeadLetterWhole(
            dead_letter=_short(letter, ERROR_CHARACTERS_MAX),
            key=bytes_of(letter.key),
            value=bytes_of(letter.value),
            headers=[pb.Header(name=name, value=value) for name, value in headers_of(letter)],
            actions=[
                pb.OperatorAction(
                    action=row.action, operator=row.operator, reason=row.reason, at=convert.timestamp(row.at)
                )
                for row in actions
            ],
        )

    async def Replay(self, request: pb.ActRequest, context: Context) -> pb.ActReply:  # noqa: N802
        """Handle the message after all."""
        try:
            return await self._act(request, context, lambda uow, act: replay(uow, act, self._handler))
        except UndecodableMessage as error:
            return _still_parked(error.cause, error)
        except Exception as error:
            if not is_poison(error):
                raise
            return _still_parked(cause_of(error), error)

    async def Discard(self, request: pb.ActRequest, context: Context) -> pb.ActReply:  # noqa: N802
        """Give the message up."""
        return await self._act(request, context, discard)

    async def _act(
        self, request: pb.ActRequest, context: Context, do: Callable[[U, Act], Awaitable[Acted | None]]
    ) -> pb.ActReply:
        act = Act(uuid_text(request.dead_letter_id) or _NO_ID, *check_operator(request))
        acted = await self._store.transact(lambda uow: do(uow, act))
        if acted is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such dead letter")
        return pb.ActReply(status=acted.status, done=acted.done)


def _chosen(request: pb.SummarizeRequest | pb.ListRequest) -> tuple[str, str]:
    if request.status not in ("", PARKED, REPLAYED, DISCARDED):
        raise InvalidRequest("there is no such status")
    return check_text("cause", request.cause, CAUSE_CHARACTERS_MAX), request.status


def _short(row: LetterRow, error_characters_max: int) -> pb.DeadLetter:
    return pb.DeadLetter(
        dead_letter_id=row.dead_letter_id,
        cause=row.cause,
        error=row.error[:error_characters_max],
        status=row.status,
        message_id=row.message_id,
        topic=row.topic,
        partition=row.partition,
        offset=row.offset,
        type=row.type or "",
        user_id=row.user_id or "",
        order_id=row.order_id or "",
        parked_at=convert.timestamp(row.parked_at),
        resolved_at=None if row.resolved_at is None else convert.timestamp(row.resolved_at),
    )


def _still_parked(cause: str, error: Exception) -> pb.ActReply:
    text = (str(error) or repr(error))[:ERROR_CHARACTERS_MAX]
    return pb.ActReply(status=PARKED, done=False, cause=cause, error=text)
