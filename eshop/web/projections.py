"""The projections over HTTP: a worker answers for its own partitions, and for all by asking the others.

For operators and other services of the shop, on a private address: there is no authentication here.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import faust
from aiohttp import ClientError, ClientTimeout
from faust.web import Request, View
from yarl import URL

from eshop.contracts.topics import PARTITIONS
from eshop.tables.entry import describe
from eshop.tables.totals import add_reports, newest_minutes
from eshop.tables.users import TABLE, NotSettled, Users

#: A worker that doesn't answer in this time is left out, and the response says so.
REPEAT_SECONDS_MAX = 2.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """The response of a worker. ``body`` is None without a usable one."""

    worker: str
    status: int = 503
    body: Mapping[str, Any] | None = None


class Workers:
    """The workers that hold the table, according to the last assignment."""

    def __init__(self, app: faust.App, users: Users) -> None:
        self._app = app
        self._users = users

    def local(self) -> dict[str, Any]:
        """Return this worker's part; raise NotSettled."""
        totals = self._users.totals()
        return {"partitions": self._users.partitions(), "totals": totals.sums(), "window": totals.window()}

    def local_user(self, user_id: str) -> dict[str, Any] | None:
        """Return a user of this worker, or None; raise NotSettled if another worker holds the user."""
        if self.holder(user_id) != self._own:
            raise NotSettled("another worker holds this user")
        entry = self._users.find(user_id)
        return None if entry is None else {"user_id": user_id, **describe(entry)}

    def holder(self, user_id: str) -> str:
        """Return the address of the worker that holds the user; raise NotSettled."""
        try:
            return str(self._app.router.key_store(TABLE, user_id.encode()))
        except KeyError as unassigned:
            raise NotSettled("nobody holds this user now") from unassigned

    async def ask_all(self) -> list[Answer]:
        """Ask every worker for its part, itself included; never raises."""
        addresses = sorted({str(url) for url in self._app.router.table_metadata(TABLE)} | {self._own})
        return list(await asyncio.gather(*(self._part_of(address) for address in addresses)))

    async def ask(self, worker: str, path: str, **query: str) -> Answer:
        """Request a part from a worker; never raises, and never waits longer than REPEAT_SECONDS_MAX."""
        url = (URL(worker) / path).with_query(query)
        try:
            timeout = ClientTimeout(total=REPEAT_SECONDS_MAX)
            async with self._app.http_client.get(url, timeout=timeout) as response:
                return Answer(worker, response.status, await response.json())
        except (ClientError, TimeoutError, ValueError) as error:
            logger.warning("worker %s does not answer: %r", worker, error)
            return Answer(worker)

    async def _part_of(self, worker: str) -> Answer:
        if worker != self._own:
            answer = await self.ask(worker, "projections/local")
            return answer if answer.status == 200 else Answer(worker)
        try:
            return Answer(worker, 200, self.local())
        except NotSettled:
            return Answer(worker)

    @property
    def _own(self) -> str:
        return str(self._app.conf.canonical_url)


def install_projections(app: faust.App, users: Users) -> None:
    """Serve ``/projections/totals``, ``/projections/window`` and ``/projections/users/{user_id}``.

    Totals and window are over all users. They name the workers that answered; if a worker did not, or during
    a rebalance, ``complete`` is false and the status 503.
    """
    workers = Workers(app, users)

    @app.page("/projections/totals")
    async def totals(view: View, _request: Request) -> Any:
        answers = await workers.ask_all()
        body = {**add_reports(_parts(answers, "totals")), **_who(answers)}
        return view.json(body, status=_status(answers))

    @app.page("/projections/window")
    async def window(view: View, _request: Request) -> Any:
        answers = await workers.ask_all()
        body = {
            "minutes": newest_minutes(add_reports(_parts(answers, "window")), time.time()),
            **_who(answers),
        }
        return view.json(body, status=_status(answers))

    @app.page("/projections/local")
    async def local(view: View, _request: Request) -> Any:
        try:
            return view.json(workers.local())
        except NotSettled as reason:
            return view.json({"error": str(reason)}, status=503)

    _install_users(app, workers)


def _install_users(app: faust.App, workers: Workers) -> None:
    @app.page("/projections/users/{user_id}")
    async def user(view: View, _request: Request, user_id: str) -> Any:
        try:
            holder = workers.holder(user_id)
            if holder == str(app.conf.canonical_url):
                return _user_response(view, workers, user_id)
        except NotSettled as reason:
            return view.json({"error": str(reason)}, status=503)
        answer = await workers.ask(holder, "projections/local/user", user_id=user_id)
        body = {"error": "the worker does not answer"} if answer.body is None else dict(answer.body)
        return view.json({**body, "worker": holder}, status=answer.status)

    @app.page("/projections/local/user")
    async def local_user(view: View, request: Request) -> Any:
        try:
            return _user_response(view, workers, request.query.get("user_id", ""))
        except NotSettled as reason:
            return view.json({"error": str(reason)}, status=503)


def _user_response(view: View, workers: Workers, user_id: str) -> Any:
    found = workers.local_user(user_id)
    if found is None:
        return view.json({"error": "no event of this user was seen"}, status=404)
    return view.json({**found, "worker": str(view.app.conf.canonical_url)})


def _parts(answers: Iterable[Answer], name: str) -> list[Any]:
    return [answer.body[name] for answer in answers if answer.body is not None]


def _who(answers: Iterable[Answer]) -> dict[str, Any]:
    answers = list(answers)
    return {
        "complete": _complete(answers),
        "workers": {answer.worker: "ok" if answer.body else "no answer" for answer in answers},
    }


def _complete(answers: Iterable[Answer]) -> bool:
    """Tell whether the parts have every partition exactly once."""
    held = sorted(partition for part in _parts(answers, "partitions") for partition in part)
    return held == list(range(PARTITIONS))


def _status(answers: Iterable[Answer]) -> int:
    return 200 if _complete(answers) else 503
