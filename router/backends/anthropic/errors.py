"""Anthropic's errors, in OpenAI's shape and with the status that they would have had."""

from __future__ import annotations

from typing import Any

import orjson

from router.errors import UpstreamError, UpstreamRefused

STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""An error in a stream has a type alone; this is what stands before it otherwise."""

TOLD = frozenset({"api_error", "not_found_error", "overloaded_error", "timeout_error"})
"""Failures that a Claude client is told in Anthropic's words. Those of others speak of the proxy's account."""

TOO_LONG = "context_length_exceeded"
_TOO_LONG = ("prompt is too long", "exceed context limit")


def chat_error(found: Any) -> dict[str, Any]:
    """The ``error`` of a body or an event of Anthropic's, as OpenAI would put it: the same type and words."""
    error = found.get("error") if isinstance(found, dict) else None
    error = error if isinstance(error, dict) else {}
    kind, message = error.get("type"), error.get("message")
    message = message if isinstance(message, str) else ""
    code = TOO_LONG if any(words in message for words in _TOO_LONG) else None
    return {"message": message, "type": kind if isinstance(kind, str) else "api_error", "param": None, "code": code}


def error_in(content: bytes) -> dict[str, Any] | None:
    """The same of an answer's bytes; None where they are nothing of Anthropic's."""
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    error = chat_error(found)
    return error if error["message"] else None


def status_of(error: dict[str, Any]) -> int:
    return STATUSES.get(error["type"], 500)


def in_words(error: UpstreamError | UpstreamRefused, *, native: bool) -> UpstreamError | UpstreamRefused:
    """The error with Anthropic's words in OpenAI's shape: a refusal's always; a failure's where the client speaks
    Anthropic's dialect, and so knows what they mean. Changes ``error``."""
    if isinstance(error, UpstreamRefused):
        if (found := error_in(error.reply_body)) is not None:
            error.reply_body = orjson.dumps({"error": found})
    elif native and (found := error_in(error.said)) is not None and found["type"] in TOLD:
        error.status, error.words = status_of(found), found
    return error
