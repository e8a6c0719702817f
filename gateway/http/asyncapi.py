"""The messages on Kafka's topics, described in AsyncAPI 3.0 from the catalogue of topics."""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, TypeAdapter

from eshop.contracts.messages import SCHEMAS, Schema

_REFERENCE = "#/components/schemas/{model}"
_HEADERS = {
    "type": "object",
    "description": "A CloudEvent in binary mode.",
    "required": ["ce_id", "ce_type", "ce_source", "ce_time", "ce_dataschema"],
    "properties": {
        name: {"type": "string", "description": text}
        for name, text in {
            "ce_id": "The message's id, the same in every redelivery.",
            "ce_type": "The type, the same in every version.",
            "ce_source": "The service that wrote the message.",
            "ce_time": "When the change happened, RFC 3339 with its offset.",
            "ce_dataschema": "The body's schema with its version.",
            "correlation_id": "The request that began it all.",
            "causation_id": "The message or request that caused this message.",
            "traceparent": "W3C trace context.",
        }.items()
    },
}


def asyncapi(version: str) -> dict[str, Any]:
    """Return the document: a channel for each topic, an operation for each service that writes one."""
    bodies = list(dict.fromkeys(schema.body for schema in SCHEMAS))
    references, definitions = TypeAdapter.json_schemas(
        [(body, "validation", TypeAdapter(body)) for body in bodies], ref_template=_REFERENCE
    )
    topics = {schema.topic.name: schema.topic for schema in SCHEMAS}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "eShop's topics",
            "version": version,
            "description": "The key is the user: all messages of a user are in one partition, in order.",
        },
        "defaultContentType": "application/json",
        "channels": {
            name: {
                "address": name,
                "description": topic.description,
                "messages": {
                    schema.body.__name__: {"$ref": f"#/components/messages/{_id(schema)}"}
                    for schema in _of(name)
                },
                "bindings": {"kafka": {"partitions": topic.partitions, "topicConfiguration": topic.config}},
            }
            for name, topic in topics.items()
        },
        "operations": {
            f"publish {name}": {"action": "send", "channel": {"$ref": f"#/channels/{name}"}}
            for name in topics
        },
        "components": {
            "messages": {
                _id(schema): _message(schema, references[schema.body, "validation"]) for schema in SCHEMAS
            },
            "schemas": definitions.get("$defs", {}),
        },
    }


def _of(topic: str) -> Iterable[Schema]:
    return (schema for schema in SCHEMAS if schema.topic.name == topic)


def _id(schema: Schema) -> str:
    return f"{schema.service}.{schema.body.__name__}"


def _message(schema: Schema, payload: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": schema.type,
        "title": schema.body.__name__,
        "summary": _first_line(schema.body),
        "headers": _HEADERS,
        "payload": payload,
    }


def _first_line(body: type[BaseModel]) -> str:
    return (body.__doc__ or "").partition("\n")[0]
