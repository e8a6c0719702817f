"""Headers that change a response: conditions with entity tags, and preferences."""

import re
from dataclasses import dataclass

from aiohttp import web

WAIT_SECONDS_MAX = 30

_VERSION = re.compile(r"0|[1-9][0-9]{0,18}")
_ETAG = re.compile(r'(?:W/)?"([^"]*)"')
_PREFER_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?=$|[,;])", re.IGNORECASE)


def etag(version: int) -> str:
    """Return the entity tag of a version."""
    return f'"{version}"'


@dataclass(frozen=True, slots=True)
class Condition:
    """The content of ``If-None-Match``: the reader's versions, or any version."""

    versions: frozenset[int]
    any: bool = False

    @property
    def floor(self) -> int:
        """The reader's newest version: no older version may be returned."""
        return max(self.versions, default=0)

    def met_by(self, version: int) -> bool:
        """Tell whether the reader has this version already."""
        return self.any or version in self.versions


def condition_of(request: web.BaseRequest) -> Condition:
    """Read ``If-None-Match``; foreign tags match nothing."""
    header = ",".join(request.headers.getall("If-None-Match", []))
    if header.strip() == "*":
        return Condition(frozenset(), any=True)
    tags = (match[1] for match in _ETAG.finditer(header))
    return Condition(frozenset(int(tag) for tag in tags if _VERSION.fullmatch(tag)))


def wait_preferred(request: web.BaseRequest) -> int:
    """Return the seconds of ``Prefer: wait=N`` (RFC 7240), bounded; 0 for none."""
    match = _PREFER_WAIT.search(",".join(request.headers.getall("Prefer", [])))
    return min(int(match[1]), WAIT_SECONDS_MAX) if match else 0
