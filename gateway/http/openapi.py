"""The API's description in OpenAPI 3.1, made from the operations."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, TypeAdapter

from gateway.http.answers import ProblemAnswer
from gateway.http.api import Operation
from gateway.http.conditions import WAIT_SECONDS_MAX
from gateway.http.identity import USER_HEADER
from gateway.http.problems import CONTENT_TYPE, KINDS

_REFERENCE = "#/components/schemas/{model}"
_INTRODUCTION = """
Money is in minor units of its currency, times are RFC 3339 in UTC. Every refusal is a problem (RFC 9457): its
type opens the page that explains it. A POST with an Idempotency-Key may be repeated: it takes effect once.
"""
#: The feed's messages do not fit OpenAPI.
_UNDESCRIBED = frozenset({"pages", "documents", "feed"})
#: The optional headers of requests.
_HEADERS: Mapping[str, tuple[str, dict[str, object]]] = {
    "Idempotency-Key": (
        "1 to 255 visible ASCII characters. A repeated request with the key gets the first response.",
        {"type": "string", "pattern": r'^("([!#-\[\]-~]|\\["\\]){1,255}"|[!#-~][!-~]{0,254})$'},
    ),
    "If-None-Match": ("An entity tag that the reader has: its version gets 304.", {"type": "string"}),
    "Prefer": (
        f"``wait=N``: wait up to N seconds, at most {WAIT_SECONDS_MAX}, for the outcome (RFC 7240).",
        {"type": "string"},
    ),
}


def openapi(operations: Sequence[Operation], version: str) -> dict[str, Any]:
    """Return the document, without pages for people such as ``/``."""
    described = [operation for operation in operations if operation.tag not in _UNDESCRIBED]
    models = _models(described)
    references, definitions = TypeAdapter.json_schemas(
        [(model, "validation", TypeAdapter(model)) for model in models], ref_template=_REFERENCE
    )
    schemas = {model: references[model, "validation"] for model in models}
    paths: dict[str, dict[str, object]] = defaultdict(dict)
    for operation in described:
        paths[operation.path][operation.method.lower()] = _operation(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "eShop", "version": version, "description": _INTRODUCTION.strip()},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": definitions.get("$defs", {}),
            "securitySchemes": {"user": {"type": "apiKey", "in": "header", "name": USER_HEADER}},
        },
    }


def _models(operations: Iterable[Operation]) -> list[type[BaseModel]]:
    used: list[type[BaseModel]] = [ProblemAnswer]
    for operation in operations:
        used += [model for model in (operation.body, *operation.answers.values()) if isinstance(model, type)]
    return list(dict.fromkeys(used))


def _operation(operation: Operation, schemas: Mapping[type[BaseModel], Any]) -> dict[str, object]:
    # Summaries are plain text, descriptions are Markdown.
    summary, _, rest = operation.text.replace("``", "").partition("\n")
    described: dict[str, object] = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": summary,
        "parameters": list(_parameters(operation)),
        "responses": _responses(operation, schemas),
        "security": [] if operation.is_public else [{"user": []}],
    }
    if rest.strip():
        described["description"] = rest.strip()
    if operation.body is not None:
        content = {"application/json": {"schema": schemas[operation.body]}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _parameters(operation: Operation) -> Iterable[dict[str, object]]:
    for name in operation.parameters:
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}
    for name, schema in operation.query.model_json_schema().get("properties", {}).items():
        [kind, *_] = schema.get("anyOf", [schema])
        kept = {key: value for key, value in kind.items() if key not in ("title", "default", "description")}
        yield {
            "name": name,
            "in": "query",
            "description": schema.get("description", "").replace("``", "`"),
            "schema": kept,
        }
    keyed = ["Idempotency-Key"] if operation.method == "POST" else []
    for name in (*keyed, *operation.headers):
        text, kind = _HEADERS[name]
        yield {"name": name, "in": "header", "description": text.replace("``", "`"), "schema": kind}


def _responses(operation: Operation, schemas: Mapping[type[BaseModel], Any]) -> dict[str, object]:
    responses: dict[str, object] = {}
    for status, answer in operation.answers.items():
        response: dict[str, object] = {"description": HTTPStatus(status).phrase}
        if isinstance(answer, str):
            response["content"] = {answer: {"schema": {"type": "string"}}}
        elif answer is not None:
            response["content"] = {"application/json": {"schema": schemas[answer]}}
        responses[str(status)] = response
    codes: dict[int, list[str]] = defaultdict(list)
    for code in sorted(operation.all_problems()):
        codes[KINDS[code].status].append(code)
    for status, names in sorted(codes.items()):
        responses[str(status)] = {
            "description": "; ".join(f"`{name}`: {KINDS[name].title}" for name in names),
            "content": {CONTENT_TYPE: {"schema": schemas[ProblemAnswer]}},
        }
    return responses
