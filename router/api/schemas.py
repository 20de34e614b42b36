"""What JSON schemas of the wire are made of: as far as the proxy itself relies on a request or promises an answer.
Every surface has its own in its module, as ``DOCUMENT``; ``router.api.openapi`` puts them together.

Everything else passes through, so additional properties are allowed everywhere but in the proxy's own answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NAME: Schema = {"type": "string", "minLength": 1}
COUNT: Schema = {"type": "integer", "minimum": 0}
LIMIT: Schema = {"type": "integer", "minimum": 1, "maximum": 2**31}
FLAG: Schema = {"type": ["boolean", "null"]}
OBJECT: Schema = {"type": "object", "additionalProperties": True}
OBJECT_OR_NULL: Schema = {"type": ["object", "null"], "additionalProperties": True}
TEXT_OR_NULL: Schema = {"type": ["string", "null"]}


def listed(items: Schema, at_least: int = 0) -> Schema:
    return {"type": "array", "items": items} | ({"minItems": at_least} if at_least else {})


def record(*required: str, **properties: Schema) -> Schema:
    """An object with at least these; ``required`` are the ones that must be there."""
    return {"type": "object", "required": list(required), "properties": properties, "additionalProperties": True}


STREAMING = {"stream": FLAG, "stream_options": OBJECT_OR_NULL}
ERROR = record(
    "error",
    error=record("message", "type", "param", "code", message=TEXT, type=TEXT, param=TEXT_OR_NULL, code=TEXT_OR_NULL),
)


@dataclass(frozen=True, slots=True)
class Operation:
    """What a path does with a POST. ``asked`` and ``answered`` are the schemas' names in the document with the schemas
    themselves, of which a request's is made from that of its field ``model``; ``error`` is how a failure looks."""

    summary: str
    asked: tuple[str, Callable[[Schema], Schema]]
    answered: tuple[str, Schema]
    streams: bool = False
    error: tuple[str, Schema] = ("Error", ERROR)
