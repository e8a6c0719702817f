"""Idempotency keys: their form, and the fingerprint of their request. The services store both.

See docs/adr/0007-idempotency-keys.md.
"""

import hashlib
import re

import orjson
from aiohttp import web

from eshop.contracts.limits import IDEMPOTENCY_KEY_CHARACTERS_MAX
from gateway.http.problems import Problem

KEY_HEADER = "Idempotency-Key"
REPLAYED_HEADER = "Idempotency-Replayed"

_KEY = re.compile(rf"[!-~]{{1,{IDEMPOTENCY_KEY_CHARACTERS_MAX}}}")
_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_ESCAPED = re.compile(r"\\(.)")


def key_of(request: web.BaseRequest, *, required: bool = False) -> str:
    """Return the key, or "" for none; raise a 400 Problem if it is malformed, or required and missing.

    The draft's quoted form (draft-ietf-httpapi-idempotency-key-header) and the bare form name the same key.
    """
    values = request.headers.getall(KEY_HEADER, [])
    if not values:
        if required:
            raise Problem("idempotency-key-required")
        return ""
    key = values[0].strip(" \t")
    if key.startswith('"'):
        quoted = _QUOTED.fullmatch(key)
        key = _ESCAPED.sub(r"\1", quoted[1]) if quoted else ""
    if len(values) != 1 or not _KEY.fullmatch(key):
        raise Problem(
            "bad-idempotency-key",
            f"Send one key of 1 to {IDEMPOTENCY_KEY_CHARACTERS_MAX} visible ASCII characters.",
        )
    return key


def fingerprint(method: str, path: str, body: object) -> bytes:
    """Return SHA-256 of method, path and the body in canonical form: its order and spacing don't count."""
    canonical = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(b"\n".join((method.encode(), path.encode(), canonical))).digest()
