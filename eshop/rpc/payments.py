"""The Payments service over gRPC."""

from typing import Any

import grpc
import uuid_utils
from grpc import aio

from eshop.contracts.limits import PAGE_MAX, REFERENCE_CHARACTERS_MAX
from eshop.contracts.proto import payments_v1_pb2 as pb
from eshop.contracts.proto import shared_v1_pb2 as shared
from eshop.contracts.proto.payments_v1_pb2_grpc import PaymentsServicer as Base
from eshop.domain.refusal import Refusal
from eshop.handlers.announce import Cause
from eshop.handlers.idempotency import Result
from eshop.handlers.payments import (
    Account,
    Request,
    close_account,
    freeze_account,
    open_account,
    refund_payment,
    top_up_account,
)
from eshop.rpc import convert
from eshop.rpc.convert import check_context, check_text, check_user, uuid_text
from eshop.rpc.feed import feed_heads, read_feed
from eshop.store.rows import StatementRow
from eshop.store.unit_of_work import PaymentsUnitOfWork, Store

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["Payments"].full_name


Context = aio.ServicerContext[Any, Any]


class PaymentsServicer(Base):
    """Answers for the payments database."""

    def __init__(self, store: Store[PaymentsUnitOfWork]) -> None:
        self._store = store

    async def OpenAccount(self, request: pb.OpenAccountRequest, context: Context) -> pb.AccountResult:  # noqa: N802
        """Open the user's account."""
        asked = _request(request.context)
        currency = convert.check_currency(request.currency)
        return _result(await self._store.transact(lambda uow: open_account(uow, asked, currency)))

    async def TopUp(self, request: pb.TopUpRequest, context: Context) -> pb.AccountResult:  # noqa: N802
        """Add money."""
        asked = _request(request.context)
        amount_minor = convert.check_amount(request.amount_minor)
        reference = check_text("reference", request.reference, REFERENCE_CHARACTERS_MAX) or None
        transfer_id = str(uuid_utils.uuid7())

        async def top_up(uow: PaymentsUnitOfWork) -> Result[Account]:
            return await top_up_account(
                uow, asked, amount_minor, transfer_id=transfer_id, reference=reference
            )

        return _result(await self._store.transact(top_up))

    async def CloseAccount(self, request: pb.CloseAccountRequest, context: Context) -> pb.AccountResult:  # noqa: N802
        """Close the user's account."""
        asked = _request(request.context)
        return _result(await self._store.transact(lambda uow: close_account(uow, asked)))

    async def SetFrozen(self, request: pb.SetFrozenRequest, context: Context) -> pb.AccountResult:  # noqa: N802
        """Freeze or unfreeze a user's account."""
        asked = _request(shared.RequestContext(user_id=request.user_id))
        reason, operator = convert.check_operator(request)

        async def freeze(uow: PaymentsUnitOfWork) -> Result[Account]:
            return await freeze_account(uow, asked, request.frozen, reason=reason, operator=operator)

        return _result(await self._store.transact(freeze))

    async def RefundPayment(  # noqa: N802
        self, request: pb.RefundPaymentRequest, context: Context
    ) -> pb.RefundPaymentReply:
        """Refund the capture for an order that is unknown to the orders service."""
        order_id = uuid_text(request.order_id)
        reason, operator = convert.check_operator(request)
        asked = str(uuid_utils.uuid7())
        found = None
        if order_id is not None:
            found = await self._store.transact(
                lambda uow: refund_payment(
                    uow,
                    order_id,
                    transfer_id=asked,
                    reason=reason,
                    operator=operator,
                    cause=Cause(correlation_id=asked, causation_id=asked),
                )
            )
        if found is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such payment")
        payment, refunded = found
        return pb.RefundPaymentReply(
            user_id=payment.user_id,
            status=payment.status.value,
            amount_minor=payment.amount_minor or 0,
            currency=payment.currency or "",
            refunded=refunded,
        )

    async def ListTransfers(  # noqa: N802
        self, request: pb.ListTransfersRequest, context: Context
    ) -> pb.ListTransfersReply:
        """Return a page of the user's statement."""
        check_user(request.user_id)
        limit = convert.bounded(request.limit, PAGE_MAX)
        before_feed_number = request.before_feed_number or convert.NUMBER_MAX
        found = await self._store.read(
            lambda uow: uow.ledger.statement(request.user_id, before_feed_number, limit + 1)
        )
        page = found[:limit]
        return pb.ListTransfersReply(
            transfers=[_transfer(row) for row in page],
            next_feed_number=page[-1].feed_number if len(found) > limit else 0,
        )

    async def GetAccount(self, request: pb.GetAccountRequest, context: Context) -> pb.Account:  # noqa: N802
        """Return the user's account."""
        check_user(request.user_id)
        wallet = await self._store.read(lambda uow: uow.wallets.get(request.user_id))
        if not wallet.is_open:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no account")
        return _account(Account.of(wallet))

    async def ReadFeed(self, request: shared.ReadFeedRequest, context: Context) -> pb.ReadFeedReply:  # noqa: N802
        """Return the changes of the user after a feed number."""
        history, head_feed_number = await read_feed(self._store, request, lambda uow: uow.feed)
        frames = [
            pb.WalletFrame(
                feed_number=row.feed_number,
                balance_minor=row.balance_minor,
                currency=row.currency,
                version=row.feed_number,
                at=convert.timestamp(row.at),
            )
            for row in history
        ]
        return pb.ReadFeedReply(frames=frames, head_feed_number=head_feed_number)

    async def FeedHeads(self, request: shared.FeedHeadsRequest, context: Context) -> shared.FeedHeadsReply:  # noqa: N802
        """Return the users' last numbers."""
        return await feed_heads(self._store, request)


def _request(context: shared.RequestContext) -> Request:
    check_context(context)
    cause = convert.cause_of(context, str(uuid_utils.uuid7()))
    return Request(context.user_id, cause, context.idempotency_key or None, context.fingerprint)


def _result(result: Result[Account]) -> pb.AccountResult:
    if isinstance(result.outcome, Refusal):
        return pb.AccountResult(refusal=convert.refusal(result.outcome), replayed=result.replayed)
    return pb.AccountResult(account=_account(result.outcome), replayed=result.replayed)


def _account(account: Account) -> pb.Account:
    return pb.Account(
        user_id=account.user_id,
        balance_minor=account.balance_minor,
        currency=account.currency,
        version=account.version,
        frozen=account.frozen,
    )


def _transfer(row: StatementRow) -> pb.Transfer:
    return pb.Transfer(
        transfer_id=row.transfer_id,
        kind=row.kind,
        amount_minor=row.amount_minor,
        balance_minor=row.balance_minor,
        currency=row.currency,
        version=row.feed_number,
        order_id=row.order_id or "",
        reference=row.reference or "",
        at=convert.timestamp(row.at),
    )
