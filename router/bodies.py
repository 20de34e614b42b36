"""A request's body, before anything in it is looked at: the same for the proxy and for the engine behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from router.errors import BadRequest


def json_object(content: bytes) -> dict[str, Any]:
    """The body as an object.

    Raises:
        BadRequest: it is none, or nests deeper than some 240 levels.
    """
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError as e:
        raise BadRequest(f"the request is not valid JSON: {e}") from e
    if not isinstance(body, dict):
        raise BadRequest("the request must be a JSON object")
    try:  # reading takes deeper nesting than writing: what could be neither passed on nor kept is told now
        orjson.dumps([[[[[[[[body]]]]]]]])
    except TypeError as e:
        raise BadRequest("the request is nested too deeply") from e
    return body


def model_of(body: Mapping[str, Any]) -> str:
    """The model asked for. Raises BadRequest where none is named."""
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise BadRequest("'model' must be given, as a string", param="model")
    return str(body["model"])
