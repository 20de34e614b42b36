"""Errors in Anthropic's shape, from ours and from OpenAI's."""

from __future__ import annotations

from typing import Any

import orjson

from router.errors import LocumError

TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""Anthropic's error types by HTTP status; any other is ``invalid_request_error`` below 500, else ``api_error``."""

STATUSES = {kind: status for status, kind in TYPES.items()} | {
    "invalid_request_error": 400,
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "insufficient_quota": 429,
    "upstream_timeout": 504,
    "upstream_unreachable": 503,
    "circuit_open": 503,
}
"""What an error inside a stream, which has no status of its own, would have had, by its code or type."""

CODES = {"thread": "thread_unsupported_request"}
"""Codes that Anthropic's clients act on, by the field at fault: told this one, they send the whole conversation."""

_LONGEST_CHARS = 4000


def error_shape(error: LocumError, request_id: str | None = None) -> dict[str, Any]:
    """One of our own errors."""
    body = error_body(error.status, str(error), request_id)
    if code := CODES.get(error.param or ""):
        body["error"]["details"] = {"error_code": code}
    return body


def error_body(status: int, message: str, request_id: str | None = None) -> dict[str, Any]:
    """An error as Anthropic's clients parse it into their own exception classes."""
    kind = TYPES.get(status) or ("invalid_request_error" if status < 500 else "api_error")
    named = {"request_id": request_id} if request_id else {}
    return {"type": "error", "error": {"type": kind, "message": message}, **named}


def from_openai(status: int, content: bytes, request_id: str) -> dict[str, Any]:
    """An error answer in OpenAI's shape, or in no shape at all, as providers send them."""
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError:
        found = content.decode("utf-8", "replace")
    return error_body(status, _message(found) or f"the model's server answered with status {status}", request_id)


def in_stream(chunk: dict[str, Any], request_id: str) -> dict[str, Any]:
    """An error that came as an event of a stream under way."""
    error = chunk.get("error")
    names = [error.get("code"), error.get("type")] if isinstance(error, dict) else []
    status = next((STATUSES[n] for n in names if isinstance(n, str) and n in STATUSES), 502)
    return error_body(status, _message(chunk) or "the answer broke off", request_id)


def _message(found: Any) -> str:
    """The words of an error: ``error.message``, or what stands where it should."""
    for key in ("error", "message"):
        if isinstance(found, dict):
            found = found.get(key) or found.get("message") or found.get("detail")
    if found is None or isinstance(found, str):
        return (found or "")[:_LONGEST_CHARS]
    return orjson.dumps(found).decode()[:_LONGEST_CHARS]
