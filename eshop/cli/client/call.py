"""One call with a deadline; errors become one sentence."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from google.protobuf.message import Message
from grpc import StatusCode, aio

from eshop.cli.operators import Target
from eshop.clients.channel import credentials, open_channel
from eshop.cluster.errors import ClusterError

CALL_SECONDS_MAX = 10.0

_Reply = TypeVar("_Reply")
_Method = Callable[[aio.Channel], Callable[..., Awaitable[_Reply]]]


class Missing(ClusterError):
    """The requested object does not exist."""


def call(target: Target, method: _Method[_Reply], request: Message, missing: str = "") -> _Reply:
    """Call once; ``missing`` is the text for NOT_FOUND. Raise Missing then, ClusterError for other errors."""
    return asyncio.run(ask(target, method, request, missing))


async def ask(target: Target, method: _Method[_Reply], request: Message, missing: str = "") -> _Reply:
    """Call once, as ``call`` does, among other things."""
    try:
        async with open_channel(target.addresses) as channel:
            return await method(channel)(
                request, timeout=CALL_SECONDS_MAX, metadata=credentials(target.token)
            )
    except aio.AioRpcError as error:
        kind = Missing if error.code() is StatusCode.NOT_FOUND else ClusterError
        raise kind(_sentence(target, error, missing)) from error


def _sentence(target: Target, error: aio.AioRpcError, missing: str) -> str:
    where = f"the {target.service} service at {target.addresses}"
    details = (error.details() or "").splitlines() or [""]
    match error.code():
        case StatusCode.NOT_FOUND if missing:
            return missing
        case StatusCode.INVALID_ARGUMENT:
            return details[0]
        case StatusCode.UNAUTHENTICATED:
            return f"{where} refuses the service token: set ESHOP_SERVICE_TOKEN to the shop's"
        case StatusCode.UNAVAILABLE:
            return f"{where} cannot be reached, or has no database: is the shop up? See `eshop status`"
        case StatusCode.DEADLINE_EXCEEDED:
            return f"{where} did not answer in {CALL_SECONDS_MAX:.0f} s: look before you ask again"
        case code:
            return f"{where} failed: {code.name}: {details[0]}"
