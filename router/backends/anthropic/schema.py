"""JSON schemas in the form that Claude's constrained answers take."""

from __future__ import annotations

from typing import Any

import orjson

KEPT = frozenset({
    "$defs", "$ref", "additionalProperties", "allOf", "anyOf", "const", "default", "definitions", "description", "enum",
    "format", "items", "minItems", "properties", "required", "title", "type",
})  # fmt: skip
"""Keywords that Claude's grammar knows. Others become part of the description, so that the model is told at least."""

SOME: dict[str, tuple[Any, ...]] = {
    "format": ("date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid"),
    "minItems": (0, 1),
}
"""Keywords of which it knows some values."""

_OF_ONE = frozenset({"additionalProperties", "items"})
_OF_NAMED = frozenset({"$defs", "definitions", "properties"})
_OF_LISTED = frozenset({"allOf", "anyOf"})


def closed(schema: Any) -> Any:
    """The schema with what Claude refuses said in words, and every object closed: it makes no others."""
    if not isinstance(schema, dict):
        return schema
    found: dict[str, Any] = {}
    words: dict[str, Any] = {}
    for name, value in schema.items():
        known = "anyOf" if name == "oneOf" else name
        if known not in KEPT or (name in SOME and value not in SOME[name]):
            words[name] = value
        elif known in _OF_NAMED and isinstance(value, dict):
            found[known] = {k: closed(v) for k, v in value.items()}
        elif known in _OF_LISTED and isinstance(value, list):
            found[known] = [closed(v) for v in value]
        elif known in _OF_ONE:
            found[known] = closed(value)
        else:
            found[known] = value
    if found.get("type") == "object" or "properties" in found:
        found["additionalProperties"] = False
    if words:
        said = [found["description"]] if isinstance(found.get("description"), str) else []
        found["description"] = " ".join([*said, orjson.dumps(words).decode()])
    return found
