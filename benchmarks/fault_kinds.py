"""The kinds of faults that model servers have: what each sends, and whose fault it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from benchmarks.scripted import (
    CHUNKED,
    COUNTS,
    DONE,
    GOOD_STREAM,
    HANG,
    RESET,
    ROLE,
    STOP,
    STREAM,
    TEXT,
    USAGE,
    WORDS,
    Asked,
    Piece,
    Row,
    answer,
    chunk,
    completion,
    error,
    event,
    framed,
    head,
    healthy,
)


class Fault(Enum):
    """Whose fault it is, and so what should come.

    ``BACKEND``: the server's, before a word of its answer has left: another one answers.
    ``MIDWAY``: the server's, after that: an error event ends the stream, and the record is one of a failure.
    ``REQUEST``: the request's: the teacher is asked once, and its words are told.
    ``NONE``: odd, yet an answer.
    """

    BACKEND = "backend"
    MIDWAY = "midway"
    REQUEST = "request"
    NONE = "none"


Script = Callable[[Asked], Iterable[Piece]]
DOWN = "connection refused"
"""The kind that no script can play: its server is stopped before anything is asked."""


@dataclass(frozen=True)
class Kind:
    """One kind of fault. ``statuses``: what the client may be told where nobody can answer.

    ``fields`` are added to the request. ``says``: words of the answer, or of the refusal, that must reach the client.
    """

    name: str
    whole: Script
    streamed: Script
    fault: Fault
    midway: bool = False
    statuses: tuple[int, ...] = (502, 503)
    fields: Row = field(default_factory=dict)
    says: str = ""

    def of(self, streamed: bool) -> Fault:
        return Fault.MIDWAY if streamed and self.midway else self.fault

    def script(self, asked: Asked) -> Iterable[Piece]:
        return (self.streamed if asked.streamed else self.whole)(asked)


def always(*pieces: Piece) -> Script:
    return lambda asked: pieces


def both(name: str, fault: Fault, *pieces: Piece, **more: Any) -> Kind:
    """A kind that is the same, whole or streamed."""
    return Kind(name, always(*pieces), always(*pieces), fault, **more)


GOOD = answer(completion())
BODY = json.dumps(completion()).encode()
HALF = answer(completion())[:-200]
BEGUN = (STREAM, ROLE, *WORDS[:5])
HUGE = (b'"created": 1', b'"created": 123456789012345678901234')
SLOW = 0.05
OUT_OF_CREDIT = "Your credit balance is too low to access the API. Please go to Plans & Billing."
TOO_LONG = "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens."
CALLS = [
    {"id": "call_a", "type": "function", "function": {"name": "first", "arguments": '{"a": 1}'}},
    {"id": "call_b", "type": "function", "function": {"name": "second", "arguments": '{"b": 2}'}},
]
LOOSE: list[Row] = [
    c | {"function": c["function"] | {"arguments": json.loads(c["function"]["arguments"])}} for c in CALLS
]
TOOLS = [{"type": "function", "function": {"name": n, "parameters": {"type": "object"}}} for n in ("first", "second")]
PARTS = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": TEXT}]
DIED = {"error": {"message": "the engine died", "type": "InternalServerError", "code": 500}}
WRONG = {"error": {"message": "this model takes no such images", "type": "BadRequestError", "param": None, "code": 400}}
LONG = " ".join(map(str, range(10**6, 10**6 + 2**21)))
"""16 MB, and no word twice: nobody takes it for a loop."""


def unless_asked(field_name: str, message: str) -> Script:
    """A server that refuses one field, and answers without."""
    refusal = error(400, message, param=field_name)
    return lambda asked: (refusal,) if field_name in asked.body else healthy(asked)


def odd_stream(*events: Row | bytes) -> Script:
    return always(STREAM, ROLE, *(event(e) for e in events), STOP, COUNTS, DONE)


FAILED = Fault.BACKEND
REFUSED = Fault.REQUEST
FINE = Fault.NONE

CONNECTIONS = (
    both(DOWN, FAILED),
    both("closed without a word", FAILED),
    both("reset before the head", FAILED, RESET),
    Kind("reset before a word", always(head(), RESET), always(STREAM, ROLE, RESET), FAILED),
    Kind("reset in the answer", always(HALF, SLOW, RESET), always(*BEGUN, SLOW, RESET), FAILED, midway=True),
    both("silence before the head", FAILED, HANG, statuses=(504,)),
    Kind("silence after the head", always(head(), HANG), always(STREAM, HANG), FAILED, statuses=(504,)),
    Kind("silence in the answer", always(HALF, HANG), always(*BEGUN, HANG), FAILED, midway=True, statuses=(504,)),
    Kind(
        "a byte at a time", always(*(bytes([b]) for b in GOOD)),
        always(*(piece for p in GOOD_STREAM for piece in (p, SLOW))), FINE,
    ),
    Kind(
        "broken chunked coding",
        always(CHUNKED.replace(b"text/event-stream", b"application/json"), framed(BODY[:40]), b"zz\r\nrest\r\n"),
        always(CHUNKED, *(framed(e) for e in (ROLE, *WORDS[:5])), SLOW, b"zz\r\nrest\r\n", HANG), FAILED, midway=True,
    ),
    Kind(
        "chunked coding without an end",
        always(CHUNKED.replace(b"text/event-stream", b"application/json"), framed(BODY[:40])),
        always(CHUNKED, *(framed(e) for e in (ROLE, *WORDS[:5]))), FAILED, midway=True,
    ),
    Kind(
        "a length too long", always(head(headers={"content-length": str(len(BODY) + 100)}), BODY),
        always(head(headers={"content-type": "text/event-stream", "content-length": "99999"}), ROLE, *WORDS[:5]),
        FAILED, midway=True,
    ),
    Kind(
        "a length too short", always(head(headers={"content-length": str(len(BODY) - 100)}), BODY),
        always(
            head(headers={"content-type": "text/event-stream", "content-length": str(len(b"".join(BEGUN[1:])))}),
            *BEGUN[1:], SLOW, *WORDS[5:], STOP, DONE,
        ),
        FAILED, midway=True,
    ),
    both("gzip that is none", FAILED, head(headers={"content-encoding": "gzip"}), BODY),
)  # fmt: skip

STATUSES = (
    both("status 302", FAILED, answer(b"", {"location": "http://127.0.0.1:1/"}, 302)),
    both("status 500", FAILED, error(500, "internal")),
    both("status 503", FAILED, error(503, "unavailable")),
    both("status 529", FAILED, error(529, "overloaded", type="overloaded_error"), statuses=(502, 503, 529)),
    both("status 408", FAILED, error(408, "timed out"), statuses=(504,)),
    both("429 with Retry-After", FAILED, error(429, "slow down", {"retry-after": "7"}), statuses=(429,)),
    both(
        "429 insufficient_quota", FAILED, error(429, "You exceeded your current quota", code="insufficient_quota"),
        statuses=(429, 502, 503),
    ),
    both("401", FAILED, error(401, "Incorrect API key provided", code="invalid_api_key")),
    both("402", FAILED, error(402, "Insufficient credits"), statuses=(402,)),
    both("403 of the account", FAILED, error(403, "Your organization may not use this model")),
    both("404 model gone", FAILED, error(404, "No such model", code="model_not_found"), statuses=(404,)),
    both("410", FAILED, error(410, "gone"), statuses=(410,)),
    both(
        "400 model deprecated", FAILED, error(400, "The model has been deprecated", code="model_deprecated"),
        statuses=(404,),
    ),
    both("400 credit balance", FAILED, error(400, OUT_OF_CREDIT), statuses=(402,)),
    both("400 of the request", REFUSED, error(400, "'top_p' must be at most 1"), says="at most 1", statuses=(400,)),
    both("422 of the request", REFUSED, error(422, "seed: not an integer"), says="not an integer", statuses=(422,)),
    both("413 of the request", REFUSED, error(413, "too many images"), says="too many images", statuses=(413,)),
    both(
        "context_length_exceeded", FAILED, error(400, TOO_LONG, code="context_length_exceeded"), statuses=(400,),
    ),
    both(
        "moderation's refusal", REFUSED,
        error(403, "Your input was flagged", code=403, metadata={"reasons": ["violence"], "flagged_input": "hi"}),
        says="flagged", statuses=(403,),
    ),
    both(
        "content filter's refusal", REFUSED,
        error(400, "The response was filtered due to the prompt", code="content_filter"),
        says="filtered", statuses=(400,),
    ),
)  # fmt: skip

BODIES = (
    Kind("error in a 200", always(answer(DIED)), always(STREAM, event(DIED), DONE), FAILED),
    Kind("error after the role", always(answer(DIED)), always(STREAM, ROLE, event(DIED), DONE), FAILED),
    Kind(
        "request's fault in a 200", always(answer(WRONG)), always(STREAM, event(WRONG), DONE), REFUSED,
        statuses=(400,), says="no such images",
    ),
    Kind(
        "error in a later chunk", always(answer({**completion({"content": "The"}, None), **DIED})),
        always(*BEGUN, SLOW, event(DIED), DONE), FAILED, midway=True,
    ),
    Kind(
        "finish_reason error", always(answer(completion({"content": "The"}, "error"))),
        always(*BEGUN, SLOW, event(chunk({"content": ""}, "error")), DONE), FAILED, midway=True,
    ),
    both("an empty body", FAILED, head()),
    both("a page of HTML", FAILED, answer(b"<html><body>nginx</body></html>", {"content-type": "text/html"})),
    Kind(
        "JSON cut short", always(answer(BODY[:-40])),
        always(*BEGUN, SLOW, WORDS[5][:-30]), FAILED, midway=True,
    ),
    Kind("a stream without an end", always(HALF), always(*BEGUN), FAILED, midway=True),
    Kind("[DONE] alone", always(answer(DONE)), always(STREAM, DONE), FAILED),
    Kind(
        "no choices", always(answer(completion(choices=[]))),
        always(STREAM, event(chunk(choices=[])), COUNTS, DONE), FAILED,
    ),
    Kind(
        "choices null", always(answer(completion(choices=None))),
        always(STREAM, event(chunk(choices=None)), DONE), FAILED,
    ),
    Kind(
        "NaN logprobs", always(answer(BODY.replace(b"-0.01", b"NaN", 2).replace(b"-0.01", b"-Infinity", 1))),
        always(STREAM, ROLE, *(w.replace(b"-0.01", b"NaN") for w in WORDS), STOP, COUNTS, DONE), FINE,
    ),
    Kind(
        "half an emoji", always(answer(BODY.replace(b"lazy dog", b"lazy \\ud83d dog"))),
        always(STREAM, ROLE, *(w.replace(b" lazy", b" lazy \\ud83d") for w in WORDS), STOP, COUNTS, DONE), FINE,
    ),
    Kind(
        "integers beyond 64 bits", always(answer(BODY.replace(*HUGE))),
        always(STREAM, *(e.replace(*HUGE) for e in GOOD_STREAM[1:])), FINE,
    ),
    Kind(
        "content as a list of parts", always(answer(completion({"content": PARTS}))),
        odd_stream(chunk({"content": PARTS[:1]}), chunk({"content": PARTS[1:]})), FINE,
    ),
    Kind(
        "two calls at index 0",
        always(answer(completion({"content": None, "tool_calls": [c | {"index": 0} for c in CALLS]}, "tool_calls"))),
        always(
            STREAM, ROLE, *(event(chunk({"tool_calls": [c | {"index": 0}]})) for c in CALLS),
            event(chunk(finish="tool_calls")), COUNTS, DONE,
        ),
        FINE, fields={"tools": TOOLS},
    ),
    Kind(
        "arguments of an object, indexes of text, stop with calls",
        always(answer(completion({"content": None, "tool_calls": [c | {"index": "0"} for c in LOOSE]}))),
        always(
            STREAM, ROLE, *(event(chunk({"tool_calls": [c | {"index": str(n)}]})) for n, c in enumerate(LOOSE)),
            STOP, COUNTS, DONE,
        ),
        FINE, fields={"tools": TOOLS},
    ),
    Kind(
        "messages for deltas, without index, role or end",
        always(answer(completion(choices=[{"message": {"content": TEXT}}]))),
        always(STREAM, event(chunk(choices=[{"message": {"content": TEXT}}])), COUNTS, DONE), FINE,
    ),
    Kind(
        "no usage", always(answer({k: v for k, v in completion().items() if k != "usage"})),
        always(STREAM, ROLE, *WORDS, STOP, DONE), FINE,
    ),
    Kind(
        "negative usage", always(answer(completion(usage=dict.fromkeys(USAGE, -5)))),
        always(STREAM, ROLE, *WORDS, STOP, event(chunk(choices=[], usage=dict.fromkeys(USAGE, -5))), DONE), FINE,
    ),
    Kind(
        "usage in the choice", always(answer(completion(choice={"usage": USAGE}, usage=None))),
        always(
            STREAM, ROLE, *WORDS,
            event(chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop", "usage": USAGE}])), DONE,
        ),
        FINE,
    ),
    Kind("whole for a stream, and back", always(*GOOD_STREAM), always(GOOD), FINE),
)  # fmt: skip

FIELDS = (
    Kind(
        "stream_options refused", healthy,
        unless_asked("stream_options", "Unrecognized request argument supplied: stream_options"), FINE,
    ),
    Kind("logprobs refused", *[unless_asked("logprobs", "logprobs is not supported by this model")] * 2, FINE),
    Kind(
        "max_tokens refused",
        *[unless_asked("max_tokens", "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")] * 2,
        FINE, fields={"max_tokens": 64},
    ),
)  # fmt: skip

HEAVY = Kind(
    "a line of 16 MB", always(answer(completion(text=LONG, choice={"logprobs": None}))),
    odd_stream(chunk({"content": LONG})), FINE,
)  # fmt: skip

KINDS = (*CONNECTIONS, *STATUSES, *BODIES, *FIELDS, HEAVY)
