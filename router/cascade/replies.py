"""A backend's reply, read as a whole chat answer."""

from __future__ import annotations

from typing import Any

import orjson

from router.backends.base import Backend
from router.backends.inband_errors import error_in, failure
from router.errors import UpstreamError
from router.wire.json_text import loads


def parsed(backend: Backend, content: bytes) -> tuple[dict[str, Any], bool, bool]:
    """(a whole answer, whether all that it says could be read, and by any parser). Raises UpstreamError and
    UpstreamRefused."""
    try:
        found, readable, strict = _loaded(content)
        if (error := error_in(found)) is not None:
            raise failure(backend, error)
        if found["choices"] and all(isinstance(choice["message"], dict) for choice in found["choices"]):
            return dict(found), readable, strict
    except (ValueError, LookupError, TypeError) as e:
        raise UpstreamError(f"{backend.label} answered something that is no chat completion") from e
    raise UpstreamError(f"{backend.label} answered something that is no chat completion")


def _loaded(content: bytes) -> tuple[Any, bool, bool]:
    try:
        return orjson.loads(content), True, True
    except orjson.JSONDecodeError:
        return *loads(content), False
