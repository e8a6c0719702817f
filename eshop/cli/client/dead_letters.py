"""Operators' calls of the services' dead letters. A command imports this module when it runs."""

from collections.abc import Iterator
from functools import partial

from eshop.cli.client.call import call
from eshop.cli.operators import Target
from eshop.contracts.proto import dead_letters_v1_pb2 as pb
from eshop.contracts.proto.dead_letters_v1_pb2_grpc import DeadLettersStub

PAGE = 100


def summarize(target: Target, cause: str, status: str) -> pb.Summary:
    """Return how many there are of each cause."""
    request = pb.SummarizeRequest(cause=cause, status=status)
    return call(target, lambda channel: DeadLettersStub(channel).Summarize, request)


def letters(target: Target, cause: str, status: str) -> Iterator[pb.DeadLetter]:
    """Yield dead letters, oldest first, page by page, each at most once even if it changes meanwhile."""
    ask = partial(pb.ListRequest, cause=cause, status=status, limit=PAGE)
    request: pb.ListRequest | None = ask()
    while request is not None:
        reply = call(target, lambda channel: DeadLettersStub(channel).List, request)
        yield from reply.dead_letters
        request = ask(after_id=reply.next_id) if reply.next_id else None


def show(target: Target, dead_letter_id: str) -> pb.DeadLetterWhole:
    """Return a dead letter with its whole message; raise Missing."""
    request = pb.ShowRequest(dead_letter_id=dead_letter_id)
    return call(target, lambda channel: DeadLettersStub(channel).Show, request, _missing(dead_letter_id))


def replay(target: Target, request: pb.ActRequest) -> pb.ActReply:
    """Replay a dead letter; raise Missing."""
    missing = _missing(request.dead_letter_id)
    return call(target, lambda channel: DeadLettersStub(channel).Replay, request, missing)


def discard(target: Target, request: pb.ActRequest) -> pb.ActReply:
    """Discard a dead letter; raise Missing."""
    missing = _missing(request.dead_letter_id)
    return call(target, lambda channel: DeadLettersStub(channel).Discard, request, missing)


def _missing(dead_letter_id: str) -> str:
    return f"there is no dead letter {dead_letter_id}"
