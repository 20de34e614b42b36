"""A request's body, before anything in it is looked at: the same for the proxy and for the engine behind it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from router.errors import BadRequest, TooLarge

DEEPEST = 128
"""Levels that a body may nest. Other surfaces and its record nest it deeper, and what reads records takes 199."""

MOST_VALUES = 300_000
"""Values in a body: strings, numbers, lists, objects. While they are read nobody else is served."""
COUNTED_BYTES = 2**20
"""Bodies no longer than this cannot hold enough to matter."""

PIECE_BYTES = 2**20
_BACKSLASHES = re.compile(rb"\\+")
_DUMPS_DEEPEST = 254


def json_object(content: bytes) -> dict[str, Any]:
    """The body as an object.

    Raises:
        BadRequest: it is none, or nests deeper than ``DEEPEST`` levels.
        TooLarge: it holds more than ``MOST_VALUES``.
    """
    if holds_too_much(content):
        raise TooLarge(f"the request holds more than {MOST_VALUES:,} values")
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError as e:
        raise BadRequest(f"the request is not valid JSON: {e}") from e
    if not isinstance(body, dict):
        raise BadRequest("the request must be a JSON object")
    if content.count(b"[") + content.count(b"{") <= DEEPEST:
        return body
    try:  # reading takes deeper nesting than writing: what could be neither passed on nor kept is told now
        orjson.dumps(buried(body, DEEPEST))
    except TypeError as e:
        raise BadRequest(f"the request is nested more than {DEEPEST} levels deep") from e
    return body


def holds_too_much(content: bytes) -> bool:
    """Whether JSON holds more than ``MOST_VALUES``."""
    return len(content) > COUNTED_BYTES and _values(content) > MOST_VALUES


def _values(content: bytes) -> int:
    """About how many values there are, without reading them: by what parts them, outside of strings."""
    if content.count(b",") + content.count(b":") <= MOST_VALUES:
        return 0  # not even with those inside of strings
    count, quotes, at = 0, 0, 0
    while at < len(content) and count <= MOST_VALUES and quotes <= 2 * MOST_VALUES:
        end = _whole_escapes(content, at + PIECE_BYTES)
        piece, at = content[at:end], end
        if b"\\" in piece:
            piece = piece.replace(b"\\\\", b"").replace(b'\\"', b"")
        parts = piece.split(b'"')
        outside = b"".join(parts[quotes % 2 :: 2])
        count += outside.count(b",") + outside.count(b"[") + outside.count(b"{")
        quotes += len(parts) - 1
    return count if quotes <= 2 * MOST_VALUES else MOST_VALUES + 1


def _whole_escapes(content: bytes, end: int) -> int:
    """Where a piece may end so that no escape is cut: behind the backslashes there, and what they stand before."""
    found = _BACKSLASHES.match(content, max(0, end - 1))
    return end if found is None else found.end() + 1


def buried(value: object, deepest: int) -> object:
    """The value in so many lists that orjson writes it only where it nests ``deepest`` levels at most: a check of
    the depth that costs no walk of its own."""
    for _ in range(_DUMPS_DEEPEST - deepest):
        value = [value]
    return value


def model_of(body: Mapping[str, Any]) -> str:
    """The model asked for. Raises BadRequest where none is named."""
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise BadRequest("'model' must be given, as a string", param="model")
    return str(body["model"])
