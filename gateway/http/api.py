"""The decorator of every route: checks a request before its handler runs, and describes the operation.

A user's operation checks in this order: user, path, Idempotency-Key, query, body. The first flaw is answered.
See docs/adr/0026-one-decorator-for-every-route.md.
"""

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from aiohttp import web
from pydantic import BaseModel

from eshop.contracts.proto.shared_v1_pb2 import RequestContext
from gateway.http.bodies import must_be_empty, read_object, validated
from gateway.http.identity import user_of
from gateway.http.problems import Problem
from gateway.http.queries import Query, read_query
from gateway.http.responses import context_of, idempotency_key

#: The bodies of responses by status; None: no body. A str is the body's media type.
Answers = Mapping[int, type[BaseModel] | str | None]

B = TypeVar("B", bound=BaseModel | None)
Q = TypeVar("Q", bound=Query)
_Handler = TypeVar("_Handler", bound=Callable[..., Awaitable[web.StreamResponse]])

_PARAMETER = re.compile(r"{(\w+)}")
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: Problems of every operation of a user, and of those with a body.
_COMMON = ("unauthenticated", "bad-query", "internal", "unavailable", "slow")
_OF_BODIES = ("malformed-body", "request-timeout", "body-too-large", "unsupported-media-type", "invalid")
_OF_KEYS = (
    "bad-idempotency-key",
    "idempotency-key-required",
    "idempotency-in-progress",
    "idempotency-key-reused",
)


@dataclass(frozen=True, slots=True)
class Call(Generic[B, Q]):
    """A checked request of a user. ``given`` is the body as it came: the fingerprint is made of it."""

    request: web.Request
    user_id: str
    path: Mapping[str, str]
    query: Q
    body: B
    given: Mapping[str, Any]

    @property
    def app(self) -> web.Application:
        """The gateway."""
        return self.request.app

    def context(self) -> RequestContext:
        """Return the context of the call to a service, with the Idempotency-Key."""
        return context_of(self.request, self.user_id, self.given)


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation, as its description needs it. ``headers`` are optional headers of its request."""

    method: str
    path: str
    tag: str
    name: str
    text: str
    answers: Answers
    is_public: bool = False
    query: type[Query] = Query
    body: type[BaseModel] | None = None
    headers: Sequence[str] = ()
    problems: Sequence[str] = ()

    @property
    def parameters(self) -> list[str]:
        """The names of the path's parameters: ids."""
        return _PARAMETER.findall(self.path)

    @property
    def has_body(self) -> bool:
        """Whether a body is read; without a model it must be empty."""
        return self.method in ("POST", "DELETE")

    def all_problems(self) -> set[str]:
        """Return the codes of all problems that the operation may have."""
        if self.is_public:
            return {*self.problems, "bad-query"}
        codes = {*self.problems, *_COMMON}
        codes |= {"not-found"} if self.parameters else set()
        codes |= set(_OF_BODIES) if self.has_body else set()
        return codes | (set(_OF_KEYS) if self.method == "POST" else set())


@dataclass(slots=True)
class Api:
    """The routes of a resource, and their operations in the order of the module."""

    tag: str
    routes: web.RouteTableDef = field(default_factory=web.RouteTableDef)
    operations: list[Operation] = field(default_factory=list)

    def get(self, path: str, *, answers: Answers, **more: Any) -> Callable[[_Handler], _Handler]:
        """Register a read of a user's resource; its handler takes a Call."""
        return self._user("GET", path, answers, more)

    def post(self, path: str, *, answers: Answers, **more: Any) -> Callable[[_Handler], _Handler]:
        """Register a change that takes an Idempotency-Key; its handler takes a Call."""
        return self._user("POST", path, answers, more)

    def delete(self, path: str, *, answers: Answers, **more: Any) -> Callable[[_Handler], _Handler]:
        """Register a deletion, which is idempotent without a key; its handler takes a Call."""
        return self._user("DELETE", path, answers, more)

    def public(
        self, path: str, *, answers: Answers, problems: Sequence[str] = (), allow_head: bool = True
    ) -> Callable[[_Handler], _Handler]:
        """Register a read that needs no user, or that checks for itself; its handler takes the request."""

        def register(handler: _Handler) -> _Handler:
            name, text = _described(handler)
            self.operations.append(
                Operation("GET", path, self.tag, name, text, answers, is_public=True, problems=problems)
            )
            self.routes.get(path, allow_head=allow_head)(handler)
            return handler

        return register

    def _user(
        self, method: str, path: str, answers: Answers, more: Mapping[str, Any]
    ) -> Callable[[_Handler], _Handler]:
        def register(handler: _Handler) -> _Handler:
            operation = Operation(method, path, self.tag, *_described(handler), answers, **more)
            self.operations.append(operation)
            self.routes.route(method, path)(_checked(operation, handler))
            return handler

        return register


def _described(handler: Callable[..., object]) -> tuple[str, str]:
    """Return a handler's name and its docstring."""
    return getattr(handler, "__name__", ""), inspect.getdoc(handler) or ""


def _checked(
    operation: Operation, handler: Callable[..., Awaitable[web.StreamResponse]]
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Return the handler of a request that calls another with a checked Call."""

    async def handle(request: web.Request) -> web.StreamResponse:
        user_id = user_of(request)
        path = {name: _id(request.match_info[name]) for name in operation.parameters}
        if operation.method == "POST":
            idempotency_key(request)
        query = read_query(operation.query, request)
        body, given = await _body(operation, request)
        return await handler(Call(request, user_id, path, query, body, given))

    return handle


def _id(text: str) -> str:
    """Return an id in its canonical form; raise the 404 Problem of an unknown object if it is malformed."""
    if not _ID.fullmatch(text.lower()):
        raise Problem("not-found")
    return text.lower()


async def _body(operation: Operation, request: web.Request) -> tuple[BaseModel | None, dict[str, Any]]:
    if operation.body is not None:
        given = await read_object(request)
        return validated(operation.body, given), given
    if operation.has_body:
        await must_be_empty(request)
    return None, {}
