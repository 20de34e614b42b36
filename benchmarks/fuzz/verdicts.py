"""What must not come back, whoever sent what: failures of ours, silence, halves of answers, what is another's."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.fuzz.connection import Answer
from benchmarks.fuzz.requests import Request
from router.wire.sse import DONE, payload, split

SECRET = "sk-teacher-SECRET-20af"
UPSTREAMS = frozenset({502, 503, 504, 529})
OURS = "internal error"
"""How the words begin that a client gets where the proxy itself failed."""
SURFACES = (
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/feedback",
)
TERMINAL = ("response.completed", "response.failed", "response.incomplete", "error", "message_stop")


def of_client(request: Request, answer: Answer) -> str | None:
    """What is wrong with an answer to a client that may say anything, while every model server is well."""
    if fault := _of_any(request, answer):
        return fault
    if answer.status >= 500 and not (answer.status == 503 and request.path.startswith("/health/ready")):
        return f"status {answer.status}"
    if not request.keyed and answer.status == 200 and request.path.startswith("/v1/"):
        return "answered without a key"
    if request.another and answer.status not in (404, 405):
        return f"what is another's was answered with {answer.status}"
    if answer.whole and answer.status == 200 and answer.is_stream:
        return _stream(request, answer, well=True)
    return None


def of_upstream(request: Request, answer: Answer) -> str | None:
    """What is wrong with an answer to a good request, while model servers say anything."""
    if fault := _of_any(request, answer):
        return fault
    if answer.status >= 500:
        if answer.status not in UPSTREAMS and not _claudes(request, answer):
            return f"status {answer.status}"
        return None if _error(answer.body) or not answer.whole else "a failure without an error in its body"
    if answer.whole and answer.status == 200 and answer.is_stream:
        return _stream(request, answer, well=False)
    if answer.whole and answer.status == 200 and not request.native and _json(answer.body) is None:
        return "an answer that is no JSON"
    return None


def _of_any(request: Request, answer: Answer) -> str | None:
    waits = request.leaves_after is None
    if answer.late:
        return "no answer in time"
    if waits and not answer.status:
        return None if answer.reset and request.pieces > 1 else "no answer"  # turned away while it was still sending
    if waits and request.reads is None and not answer.whole:
        return f"status {answer.status}, and then half an answer"
    if SECRET.encode() in answer.body or any(SECRET in v for v in answer.headers.values()):
        return "the teacher's key in an answer"
    told = answer.status >= 400 and answer.whole and answer.body and request.path.startswith(SURFACES)
    if told and answer.headers.get("content-type", "").startswith("application/json") and _json(answer.body) is None:
        return None if answer.headers.get("x-locum-reason") else "an error that is no JSON"  # a server's own words
    return None


def _stream(request: Request, answer: Answer, *, well: bool) -> str | None:
    """A stream says how it ended, and what we wrote of it is JSON."""
    found = [_json(data) for data in map(payload, split(answer.body)) if data and data != DONE]
    if None in found and (well or not request.native):
        return "an event that is no JSON"
    if request.path in ("/v1/chat/completions", "/v1/completions"):
        ended = b"[DONE]" in answer.body or b'"finish_reason"' in answer.body or b'"error"' in answer.body
        return None if ended else "a stream without an end"
    kinds = [event.get("type") for event in found if isinstance(event, dict)]
    if not any(kind in TERMINAL for kind in kinds if isinstance(kind, str)):
        return "a stream without an end"
    return "a failure, though every server is well" if well and kinds[-1] in ("error", "response.failed") else None


def _claudes(request: Request, answer: Answer) -> bool:
    """Whether a 500 is Claude's own failure, which a client of Claude's is told in its words: never one of ours."""
    error = _error(answer.body) if request.native and answer.status == 500 else None
    return bool(error) and error["type"] == "api_error" and not error["message"].startswith(OURS)


def _error(body: bytes) -> Any:
    """The error that a body tells, in OpenAI's shape or in Anthropic's."""
    found = _json(body)
    error = found.get("error") if isinstance(found, dict) else None
    return error if isinstance(error, dict) and error.get("message") and error.get("type") else None


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
