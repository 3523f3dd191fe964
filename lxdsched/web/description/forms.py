"""The shapes in which schemas are written."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

Schema = dict[str, Any]
"""A JSON Schema, or another part of the document."""


def record(description: str, properties: Mapping[str, Schema], *, optional: Collection[str] = ()) -> Schema:
    """Describe an object that has exactly these keys, and may lack the optional ones."""
    return {
        "type": "object",
        "description": description,
        "properties": dict(properties),
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def by_key(description: str, key: str, value: Schema) -> Schema:
    """Describe an object whose keys are not known before; `key` says what they are."""
    return {"type": "object", "description": f"{description} By {key}.", "additionalProperties": value}


def text(description: str, **more: object) -> Schema:
    """Describe a text that is never empty."""
    return {"type": "string", "minLength": 1, "description": description, **more}


def whole(description: str, *, least: int = 0, **more: object) -> Schema:
    """Describe a whole number."""
    return {"type": "integer", "minimum": least, "description": description, **more}


def number(description: str, **more: object) -> Schema:
    """Describe a number that may have decimals."""
    return {"type": "number", "description": description, **more}


def moment(description: str) -> Schema:
    """Describe a time."""
    return {"type": "string", "format": "date-time", "description": f"{description} RFC 3339, in UTC."}


def array(description: str, items: Schema, **more: object) -> Schema:
    """Describe an array."""
    return {"type": "array", "description": description, "items": items, **more}


def ref(name: str) -> Schema:
    """Refer to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def or_null(schema: Schema) -> Schema:
    """Allow null beside what a schema allows."""
    if "$ref" in schema:
        return {"oneOf": [schema, {"type": "null"}]}
    allowed = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return schema | {"type": [schema["type"], "null"]} | allowed
