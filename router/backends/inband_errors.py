"""An error where an answer should be: told under a status 200, in whatever form.

A request's own fault may come so (vLLM's and SGLang's streams have no other way), and so may a failure, before an
answer or in its middle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from router.backends.base import Backend
from router.backends.faults import fault, without_secrets
from router.errors import UpstreamBrokeOff, UpstreamError, UpstreamRefused, UpstreamUnusable
from router.store.redaction import redact
from router.wire.finish import finish_of
from router.wire.json_text import loads
from router.wire.sse import piece_of
from router.wire.usage import told_in

Told = dict[str, str | int | None]
"""An error in OpenAI's shape: ``message``, ``type``, ``param`` and ``code``."""

LONGEST_CHARS = 4000
_MESSAGES = ("message", "msg", "detail", "error_msg", "error_message", "error_description", "status_msg")
_CODES = ("status", "status_code", "http_code", "code", "error_code")
_STATUSES = {
    400: ("invalid", "badrequest", "bad_request", "unprocessable", "validation", "context_length", "content_filter"),
    401: ("authentication", "unauthenticated", "unauthorized", "api_key"),
    402: ("billing", "payment"),
    403: ("permission", "forbidden"),
    404: ("not_found", "notfound"),
    429: ("rate_limit", "ratelimit", "too_many", "resource_exhausted", "quota"),
    529: ("overloaded",),
}
"""What an error's names have in them whose status is not told."""
_ERRORS = ("error", "errors")
_ASCII_ESCAPED = (b"\\u004", b"\\u005", b"\\u006", b"\\u007")
"""Letters that no server escapes, but one that writes its keys in an odd way."""
_MODERATED = ("content_policy", "content_filter", "content policy", "moderation")


def error_in(found: Any) -> Told | None:
    """The error that an answer or a chunk of one tells; None where it tells none."""
    if not isinstance(found, dict):
        return None
    choices = found.get("choices")
    if error := _named(found):
        return told(error)
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and (error := _in_choice(choice)):
            return told(error)
    if "error" in (found.get("object"), found.get("type")):
        return told(found)
    if not choices and not isinstance(found.get("usage"), dict) and any(found.get(key) for key in _MESSAGES):
        return told(found)
    return None


def raise_error_in(backend: Backend, content: bytes) -> None:
    """Raises the failure that a whole answer's bytes tell, if any."""
    if not suspicious(content):
        return
    try:
        found, _ = loads(content)
    except ValueError:
        return  # whether that is an answer, others say
    if (error := error_in(found)) is not None:
        raise failure(backend, error, told_in(found))


def suspicious(content: bytes) -> bool:
    """Whether there may be an error in it: all others need not be read. In texts the quotes are escaped."""
    return (
        (b"rror" in content and (b'rror"' in content or b'rrors"' in content))
        or b"RROR" in content
        or b'"detail"' in content
        or (b"\\u00" in content and any(escape in content for escape in _ASCII_ESCAPED))
    )


def _named(found: Mapping[str, Any]) -> Any:
    """What stands under an error's name, however that is spelled."""
    return next((value for key, value in found.items() if value and key.lower() in _ERRORS), None)


def _in_choice(choice: Mapping[str, Any]) -> Any:
    said, finish = piece_of(choice), choice.get("finish_reason")
    if error := _named(choice) or _named(said):
        return error
    if said.get("role") == "error":
        return said.get("content") or "the answer is an error"
    return "the answer ended in an error" if finish_of(finish) == "error" else None


def told(error: Any) -> Told:
    """An error's words in OpenAI's shape, without what looks like a key."""
    if isinstance(error, list) and error:
        error = error[0]
    if not isinstance(error, dict):
        return {"message": _words(error), "type": None, "param": None, "code": None}
    message = next((value for key in _MESSAGES if (value := error.get(key))), error)
    kind, param = (value if isinstance(value := error.get(key), str) else None for key in ("type", "param"))
    codes = (value for key in reversed(_CODES) if isinstance(value := error.get(key), str | int) and value is not True)
    return {"message": _words(message), "type": kind, "param": param, "code": next(codes, None)}


def failure(backend: Backend, error: Told, usage: Mapping[str, Any] | None) -> UpstreamError | UpstreamRefused:
    """Whose fault an error is that came instead of an answer, as if its status had been told where it belongs;
    ``usage`` was told with it."""
    found = fault(backend, status_of(error), orjson.dumps({"error": error}), {})
    found.usage = usage
    return found


def broken_off(backend: Backend, error: Told, usage: Mapping[str, Any] | None) -> UpstreamBrokeOff:
    """The same in the middle of an answer: the words are the client's to read where the account is not at fault."""
    found = failure(backend, error, usage)
    words = (
        found.body()
        if isinstance(found, UpstreamUnusable)
        else orjson.loads(without_secrets(backend, orjson.dumps({"error": error})))
    )
    broken = UpstreamBrokeOff(f"{backend.label} broke off its answer with an error", words["error"])
    broken.usage = usage
    return broken


def status_of(error: Told) -> int:
    """The status that the error would have had; 502 where it does not say."""
    code = error["code"]
    if isinstance(code, str) and code.isdecimal() and len(code) == 3:
        code = int(code)
    if isinstance(code, int) and 400 <= code < 600:
        return code
    names = f"{code} {error['type']}".lower()
    found = next((status for status, parts in _STATUSES.items() if any(part in names for part in parts)), None)
    if found is None and any(word in f"{names} {error['message']}".lower() for word in _MODERATED):
        return 400
    return found or 502


def _words(message: Any) -> str:
    if not isinstance(message, str):
        try:
            message = orjson.dumps(message).decode()
        except TypeError:  # nested too deeply
            message = "an error that cannot be shown"
    return redact(message[:LONGEST_CHARS], ("secret",))
