"""Whose fault it is that a backend gave no answer, by its status and its words.

The request's: the client is told in the backend's own words (``UpstreamRefused``), unless another backend may take it
as it is (``UpstreamUnable``). The account's or the deployment's: no use to ask there again (``UpstreamUnusable``); the
words are kept back, since they may quote a key. The moment's: any other ``UpstreamError``, with the wait that was asked
for.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import orjson

from router.backends.base import Backend
from router.errors import (
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnable,
    UpstreamUnusable,
)
from router.store.redaction import redact, redact_json
from router.wire.body import MOST_VALUES, holds_too_much

Headers = tuple[tuple[bytes, bytes], ...]
JSON: Headers = ((b"content-type", b"application/json"),)
READ_BYTES = 8_192
"""So much of a refusal is looked at."""
LONGEST_WAIT_SECONDS = 86_400.0

LOGPROB = b'"logprob"'
"""Of tokens there are many values told, each of which may be wanted."""

_MODERATION = re.compile(
    r"content_policy|content_filter|content[ _]management|moderation|flagged|safety system|responsibleaipolicy"
    r"|usage polic|data_inspection_failed"
)
_CONTEXT = re.compile(
    r"context_length_exceeded|exceed_context_size|maximum context length|max(imum)? (model|sequence) len|context window"
    r"|context limit|context size|prompt is too long|input is too long|input token count|too many (input )?tokens"
    r"|model_max_prompt_tokens|reduce the length of the (messages|prompt|input)"
)
_UNPAID = re.compile(
    r"insufficient[_ ](quota|balance|credit|funds)|credit balance is too low|billing[_ ](hard[_ ]limit|not[_ ]active)"
    r"|exceeded your current quota|out of credits|quota_exceeded|payment required|account_deactivated|access_terminated"
    r"|usage limits?\. you will regain access|low credit|\bspend(ing)? (limit|cap)\b|out of (credit|funds|budget)"
    r"|(monthly|credit|budget|usage) (limit|cap) (has been |was |is )?(reached|exceeded)"
)
_KEY = re.compile(r"api_key_invalid|api key (not valid|expired)|invalid[_ ]api[_ ]key|incorrect api key")
_OURS = r"(?<!['`\\])\b(?:organi[sz]ation|project|workspace|account|subscription|tenant)\b[^.:;{}]{0,80}?"
"""The account, and what an account is part of, as the one that a sentence is about."""
_DENIED = re.compile(
    _OURS + r"(?:(?:has been|is|was) (?:currently |temporarily )?(?:disabled|suspended|deactivated|restricted|blocked"
    r"|locked|not active|not verified|inactive)|(?:must|needs to|has to) be (?:verified|activated|upgraded)"
    r"|(?:does not|doesn't|do not) have (?:access|permission)|has (?:disabled|restricted|blocked)"
    r"|is not (?:allowed|authori[sz]ed|permitted|enabled) to (?:access|use))"
    r"|\byou (?:do not|don't) have (?:access|permission)"
    r"|not (?:available|enabled|supported) (?:for|in|on|to) your (?:organi[sz]ation|account|plan|tier|country|region)"
)
_TOO_LOW = re.compile(r"request too large for .{0,300}(\btpm\b|tokens per min|rate limit|organi[sz]ation)")
"""A limit of the account's on what is asked in a minute, which one request is over."""
_MODEL_GONE = re.compile(
    r"model_not_found|model_decommissioned|model_deprecated|model_not_available|not a valid model id|unknown[_ ]model"
    r"|no such model|\b(model|deployment)\b[^.{}]{0,120}?(does not exist|not found|deprecated|decommissioned|retired"
    r"|end[ -]of[ -]life|no longer (available|supported|served))"
)
_KEPT_BACK = ("secret", "email")
_CODE = re.compile(r"[A-Za-z_]{3,48}")
_SAYS_NOTHING = frozenset({"error", "invalid_request_error", "unknown_error"})
_PLEASE_WAIT = (
    re.compile(r'"?retry_?delay"?[\s:{\\"]*(?:seconds[\s:]*)?(?P<s>\d+(?:\.\d+)?)'),
    re.compile(
        r"(?:try again|retry)\s+(?:in|after)\s+(?:(?P<h>\d+)h)?(?:(?P<m>\d+)m(?!s))?"
        r"(?:(?P<s>\d+(?:\.\d+)?)\s*(?:s\b|sec)|(?P<ms>\d+(?:\.\d+)?)\s*ms)?"
    ),
)
_RETRY_INFO = "retrydelay"
"""Google's, whose limits of a minute are called quotas too."""
_UNIT_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def fault(
    backend: Backend, status: int, body: bytes, headers: Mapping[str, str], *, passed_on: Headers = JSON
) -> UpstreamError | UpstreamRefused:
    """What a status of 300 or more means. ``body`` is what came with it, ``passed_on`` the headers that a client gets
    with it where the request is at fault. The message of an ``UpstreamError`` quotes nothing of it."""
    text = body[:READ_BYTES].decode("utf-8", "replace").lower()
    said = without_secrets(backend, body)
    named, code, wait = backend.label, _code(body), wait_seconds(headers, text)
    if 400 <= status < 500 and status not in (408, 409, 425):
        if (found := _account(named, status, text, code, wait)) is not None:
            found.said = said
            return found
        # at any moment: for this one the limit itself is too low
        if (status == 429 and "request too large" in text) or (status in (400, 413) and _TOO_LOW.search(text)):
            return unable(f"{named} takes no request as long as this one ({status})", "messages", status=413)
        if status != 429:
            kind = UpstreamUnable if status in (400, 413, 422) and _CONTEXT.search(text) else UpstreamRefused
            return kind(
                f"{named} refused the request ({status})",
                reply_status=status,
                reply_body=said,
                reply_headers=passed_on,
            )
    if status == 429:
        return UpstreamRateLimited(f"{named} is rate-limited (429)", wait_seconds=wait, said=said)
    if status == 408:
        return UpstreamTimeout(
            f"{named} timed out by its own account (408)", wait_seconds=wait, passing=True, said=said
        )
    told = status if status in (503, 504, 529) else None
    return UpstreamError(f"{named} answered {status}", status=told, wait_seconds=wait, said=said)


def without_secrets(backend: Backend, body: bytes) -> bytes:
    """An error's body without the backend's key, what else looks like one, and e-mail addresses, which say whose the
    account is. As it came where it holds none."""
    body = backend.without_key(body)
    try:
        found = orjson.loads(body)
        safe = redact_json(found, _KEPT_BACK)
        return body if safe == found else orjson.dumps(safe)
    except (ValueError, TypeError, RecursionError):  # no JSON, or nested too deeply
        text = body.decode("utf-8", "surrogateescape")
        safe = redact(text, _KEPT_BACK)
        return body if safe == text else safe.encode("utf-8", "surrogateescape")


def unable(why: str, param: str, *, status: int = 400) -> UpstreamUnable:
    """What a backend cannot take, said in our own words."""
    error = {"message": why, "type": "invalid_request_error", "param": param, "code": None}
    return UpstreamUnable(why, reply_status=status, reply_body=orjson.dumps({"error": error}), reply_headers=JSON)


def wait_seconds(headers: Mapping[str, str], text: str) -> float | None:
    """How long a backend asks to be left alone, by its headers or by its words (lower case); None: it does not say."""
    if (ms := _number(headers.get("retry-after-ms"))) is not None:
        return ms / 1000
    if (said := headers.get("retry-after")) is not None:
        if (seconds := _number(said)) is not None:
            return seconds
        try:
            return _bounded(parsedate_to_datetime(said).timestamp() - time.time())
        except (ValueError, OverflowError):
            pass
    for pattern in _PLEASE_WAIT:
        if (found := pattern.search(text)) and any(found.groups()):
            given = found.groupdict(default="0")
            return _bounded(sum(float(given.get(unit, 0)) * seconds for unit, seconds in _UNIT_SECONDS.items()))
    return None


_ELSEWHERE = "have the policy name another model, or a fallback"
_REMEDIES = {
    402: f"pay its provider, or {_ELSEWHERE}",
    429: f"pay its provider, or {_ELSEWHERE}",
    404: f"check the policy's model and url, or {_ELSEWHERE}",
    410: _ELSEWHERE,
    502: "check the key that the policy names, and what it may ask for",
}
"""What an operator does about it, by the status that a client is told."""


def _account(named: str, status: int, text: str, code: str | None, wait: float | None) -> UpstreamUnusable | None:
    """The fault of the proxy's own account, or of what it asks for there; None where it is none."""
    if status != 429 and _MODERATION.search(text):  # whatever the status: it says that it read the request
        return None
    if status == 403 and "logprobs" in text:  # OpenAI's answer for models that give none
        return None
    what, told = _unusable(status, text)
    if not what:
        return None
    why = f"{named} {what} ({status}, {code})" if code else f"{named} {what} ({status})"
    why = f"{why}: {_REMEDIES[told]}" if told in _REMEDIES else why
    return UpstreamUnusable(why, status=told, code=code, wait_seconds=wait)


def _unusable(status: int, text: str) -> tuple[str, int]:
    """(what is wrong with the account or the deployment, or nothing, the status to tell a client)."""
    if status == 402 or (_UNPAID.search(text) and not (status == 429 and _RETRY_INFO in text)):
        return "is not paid for", 429 if status == 429 else 402
    if status in (401, 403) or (status == 400 and _KEY.search(text)):
        return "refused the proxy's own credentials", 502
    if status in (404, 410) or (status != 429 and _MODEL_GONE.search(text)):
        return "is not there", 410 if status == 410 else 404
    if status != 429 and _DENIED.search(text):
        return "does not do this for the proxy's own account", 502
    return ("has no room", 503) if status == 498 else ("", 0)  # Groq: none in the tier that was paid for


def _code(body: bytes) -> str | None:
    """The word by which the provider names the failure; letters alone, which no key is made of."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    found = found[0] if isinstance(found, list) and found else found
    error: Any = found.get("error", found) if isinstance(found, dict) else None
    if not isinstance(error, dict):
        return None
    words = (error.get(key) for key in ("code", "status", "type"))
    return next((w for w in words if isinstance(w, str) and w not in _SAYS_NOTHING and _CODE.fullmatch(w)), None)


def _number(said: str | None) -> float | None:
    try:
        return None if said is None else _bounded(float(said))
    except ValueError:
        return None


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), LONGEST_WAIT_SECONDS) if math.isfinite(seconds) else LONGEST_WAIT_SECONDS


def surely_unpaid(error: UpstreamError | UpstreamRefused) -> bool:
    """Whether a call that failed so cannot have cost anything: it was never sent, or turned away by its status, which
    litellm's exceptions have, and tells of no tokens."""
    if error.usage:
        return False
    if isinstance(error, UpstreamRefused | UpstreamRateLimited):
        return True
    cause = error.__cause__
    if cause is None or isinstance(cause, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return True
    return hasattr(cause, "status_code") and not isinstance(error, UpstreamTimeout)


def too_long(backend: Backend, most: str) -> UpstreamError:
    """An answer of more than is ever one."""
    error = UpstreamError(f"{backend.label} answered with more than {most}")
    error.__cause__ = aiohttp.ClientPayloadError("more would come")  # it was an answer, which may have to be paid
    return error


def bound(backend: Backend, content: bytes) -> None:
    """Raises UpstreamError where an answer, or an event of one, holds more values than are ever said: while they are
    read nobody else is served."""
    if holds_too_much(content) and LOGPROB not in content:
        raise too_long(backend, f"{MOST_VALUES:,} values")
