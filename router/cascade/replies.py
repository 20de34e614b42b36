"""A backend's reply: read as a whole chat answer, and as its client gets it."""

from __future__ import annotations

from typing import Any

import orjson

from router.backends.base import Backend
from router.backends.history import own_call_ids
from router.backends.inband_errors import error_in, failure
from router.errors import UpstreamError
from router.wire.json_text import loads
from router.wire.sse import without_logprobs
from router.wire.usage import told_in


def parsed(backend: Backend, content: bytes) -> tuple[dict[str, Any], bool, bool]:
    """(a whole answer, whether all that it says could be read, and by any parser). Raises UpstreamError and
    UpstreamRefused."""
    found, cause = None, None
    try:
        found, readable, strict = _loaded(content)
        if (error := error_in(found)) is not None:
            raise failure(backend, error, told_in(found))
        if found["choices"] and all(isinstance(choice["message"], dict) for choice in found["choices"]):
            return dict(found), readable, strict
    except (ValueError, LookupError, TypeError) as e:
        cause = e
    none = UpstreamError(f"{backend.label} answered something that is no chat completion")
    none.usage = told_in(found)
    raise none from cause


def shown(found: dict[str, Any], backend: Backend, *, logprobs: bool) -> dict[str, Any]:
    """A student's answer or chunk as the client gets it: under its true name, its tool calls under our ids,
    without token probabilities (``logprobs``) that only we asked for. Changes ``found``."""
    own_call_ids(found)
    if "model" in found:
        found["model"] = backend.label
    if not logprobs:
        without_logprobs(found)
    return found


def _loaded(content: bytes) -> tuple[Any, bool, bool]:
    try:
        return orjson.loads(content), True, True
    except orjson.JSONDecodeError:
        return *loads(content), False
