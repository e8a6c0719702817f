"""Identity of the user. In header mode every caller of this port is believed: see `LOUD_WARNING`."""

import re

from aiohttp import web

from gateway.http.problems import Problem

USER_HEADER = "X-User-Id"
#: A browser can't set headers on a WebSocket: on this route a query parameter replaces the header.
SOCKET_QUERY = "user"
LOUD_WARNING = (
    "ESHOP_AUTH=header: the header X-User-Id names the user and NOBODY CHECKS IT. For development, or behind "
    "a proxy that sets it and lets no caller reach this port directly."
)

#: Visible ASCII without the comma: two headers joined by a proxy must not make a third user.
_USER = re.compile(r"[!-+\--~]{1,128}")


def user_of(request: web.BaseRequest) -> str:
    """Return the user; raise the 401 Problem if none is named, two are, or the name is malformed."""
    return _only(request.headers.getall(USER_HEADER, []))


def user_of_socket(request: web.BaseRequest) -> str:
    """Return the user of a WebSocket: by header, else by ``?user=``; raise the 401 Problem."""
    if USER_HEADER in request.headers:
        return user_of(request)
    return _only(request.query.getall(SOCKET_QUERY, []))


def _only(names: list[str]) -> str:
    if len(names) != 1 or not _USER.fullmatch(names[0]):
        raise Problem("unauthenticated", headers={"WWW-Authenticate": f'Header name="{USER_HEADER}"'})
    return names[0]
