"""What model servers answer: good answers, whole and streamed, then made wrong: values, events, framing, manners."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from random import Random
from typing import Protocol

from benchmarks.fuzz import claude
from benchmarks.fuzz.mutation import Value, mutated, odd, packed, written
from benchmarks.fuzz.slips import slipped
from benchmarks.scripted import HANG, KEEP, RESET, TEXT, USAGE, Asked, Piece, Row, chunk, completion, framed, tokens

MARK = re.compile(rb"#(\d+)#")
"""The number of the request that an answer is for stands in its text."""
_NUMBER = re.compile(r"\d+")
CALL = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"a": 1}'}}
OWN_WORDS = (
    "internal error", "overloaded", "Your credit balance is too low", "model has been deprecated", "rate limit",
    "quota",
    "maximum context length is 8192 tokens", "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'",
    "logprobs is not supported", "Unrecognized request argument supplied: stream_options", "flagged",
    "sk-teacher-secret",
)  # fmt: skip
CODES = (
    None,
    400,
    500,
    "400",
    "insufficient_quota",
    "context_length_exceeded",
    "content_filter",
    "model_not_found",
    "invalid_api_key",
    529,
)
STATUSES = (201, 204, 206, 301, 302, 400, 400, 400, 401, 402, 403, 404, 404, 408, 409, 410, 413, 418, 422, 425, 429,
429, 429, 498, 500, 500, 502, 503, 504, 529, 599, 600, 999)  # fmt: skip


SLIPPED = 0.3
"""Which share of what is wrong is so all through, as a server that has it otherwise."""
WRONG = (0.25, 0.7)
"""Which share of the answers is wrong: of policies of an even number so few that their circuits mostly stay closed."""


class Answers:
    """Scripts for ``ScriptedServer``: from the seed, the request's number, the tier and how often it was asked."""

    def __init__(self, seed: int) -> None:
        self._seed, self._asked = seed, Counter[str]()

    def __call__(self, asked: Asked) -> Iterable[Piece]:
        found = MARK.search(asked.raw)
        name = f"{self._seed}:{found[1].decode() if found else 'none'}:{asked.name.rpartition('-')[2]}"
        self._asked[name] += 1
        rng = Random(f"{name}:{self._asked[name]}")
        number = _NUMBER.search(asked.name)
        return _script(asked)(rng, asked.streamed, wrong=rng.random() < WRONG[int(number[0]) % 2 if number else 1])


def well(asked: Asked) -> Iterable[Piece]:
    """Good answers alone, as various as good answers are."""
    return _script(asked)(Random(asked.raw), asked.streamed, wrong=False)


class Script(Protocol):
    def __call__(self, rng: Random, streamed: bool, *, wrong: bool) -> Iterator[Piece]: ...


def _script(asked: Asked) -> Script:
    """By what was asked for."""
    if asked.path.endswith("/embeddings"):
        return embedded
    return in_claudes_words if asked.path.endswith("/messages") else answered


def in_claudes_words(rng: Random, streamed: bool, *, wrong: bool) -> Iterator[Piece]:
    if wrong and rng.random() < 0.2:
        return _refused(rng, claude.told(rng))
    if streamed:
        data = claude.events(rng, wrong=wrong, framed=lambda event: _event(rng, event, wrong=wrong))
        return _sent(rng, data, "text/event-stream", wrong=wrong)
    said = claude.message(rng)
    body = written(mutated(rng, said, lambda: claude.message(rng)) if wrong else said)
    return _sent(rng, body, "application/json", wrong=wrong)


def embedded(rng: Random, streamed: bool, *, wrong: bool) -> Iterator[Piece]:
    body: Value = {
        "object": "list", "model": "scripted", "usage": {"prompt_tokens": 3, "total_tokens": 3},
        "data": [{"object": "embedding", "index": 0, "embedding": [0.1, -0.2, 0.3]}],
    }  # fmt: skip
    return _sent(rng, written(_mutated(rng, body) if wrong else body), "application/json", wrong=wrong)


def answered(rng: Random, streamed: bool, *, wrong: bool) -> Iterator[Piece]:
    if wrong and rng.random() < 0.2:
        return _refused(rng, _told(rng))
    if wrong and rng.random() < 0.03:
        streamed = not streamed
    if not streamed:
        body = _whole(rng)
        if wrong and rng.random() < SLIPPED:
            slipped(rng, [body])
        elif wrong:
            body = _mutated(rng, body)
        return _sent(rng, written(body), "application/json", wrong=wrong)
    return _sent(rng, _events(rng, wrong=wrong), "text/event-stream", wrong=wrong)


def _mutated(rng: Random, value: Value) -> Value:
    return mutated(rng, value, lambda: rng.choice((_whole, _told))(rng))


def _told(rng: Random) -> Row:
    message = rng.choice(OWN_WORDS)
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": rng.choice(CODES)}}


def _whole(rng: Random) -> Row:
    kind = rng.randrange(6)
    message: Row = {}
    if kind == 0:
        message = {"content": None, "tool_calls": [CALL, CALL | {"id": "call_2"}]}
    elif kind == 1:
        message = {"reasoning_content": "hm", "reasoning": "hm", "refusal": None, "annotations": []}
    elif kind == 2:
        message = {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                {"type": "text", "text": TEXT},
            ]
        }
    return completion(message, "tool_calls" if kind == 0 else rng.choice(("stop", "length")))


def _chunks(rng: Random) -> list[Value]:
    deltas: list[Row] = [{"content": word} for word in tokens(TEXT)]
    finish = "stop"
    match rng.randrange(5):
        case 0:
            call, finish = {"index": 0, **CALL, "function": {"name": "look_up", "arguments": ""}}, "tool_calls"
            pieces = [{"index": 0, "function": {"arguments": part}} for part in ('{"a"', ": 1}")]
            deltas = [{"tool_calls": [part]} for part in (call, *pieces)]
        case 1:
            deltas = [{"reasoning_content": "hm"}, {"reasoning": "hm"}, *deltas]
    last = [chunk(choices=[], usage=USAGE)] if rng.random() < 0.8 else []
    return [chunk({"role": "assistant", "content": ""}), *map(chunk, deltas), chunk(finish=finish), *last]


def _events(rng: Random, *, wrong: bool) -> bytes:
    chunks = _chunks(rng)
    if wrong and rng.random() < SLIPPED:
        slipped(rng, chunks)
    elif wrong:
        for _ in range(rng.choice((0, 1, 1, 2, 4))):
            at = rng.randrange(len(chunks))
            match rng.randrange(8):
                case 0:
                    chunks.insert(at, _told(rng))
                case 1:
                    chunks.insert(at, chunks[rng.randrange(len(chunks))])
                case 2 if len(chunks) > 1:
                    del chunks[at]
                case 3:
                    chunks = chunks[:at] or chunks
                case 4:
                    chunks[at] = odd(rng)
                case _:
                    chunks[at] = mutated(rng, chunks[at], lambda: _whole(rng))
    lines = [_event(rng, written(c), wrong=wrong) for c in chunks]
    return b"".join(lines) + rng.choice(
        (b"data: [DONE]\n\n",) * 8 + (b"", b"data: [DONE]", b"data:[DONE]\r\n\r\n", b"[DONE]\n\n")
    )


def _event(rng: Random, data: bytes, *, wrong: bool) -> bytes:
    if not wrong or rng.random() < 0.9:
        return b"data: " + data + b"\n\n"
    return rng.choice((
        b"data:" + data + b"\n\n", b"data: " + data + b"\r\n\r\n", b"data: " + data + b"\r\r", b"data: " + data + b"\n",
        b"event: x\nid: 1\nretry: 5\ndata: " + data + b"\n\n", b": comment\n\ndata: " + data + b"\n\n",
        b"\xef\xbb\xbfdata: " + data + b"\n\n",
        b"data: " + data.replace(b",", b",\ndata: ") + b"\n\n", b"Data: " + data + b"\n\n", data + b"\n\n",
        b"data: " + data[: len(data) // 2] + b"\n\n",
        b"data: " + data + b"\n\n" * 5, b"data\n\ndata: \n\ndata: " + data + b"\n\n",
        b"event: error\ndata: " + data + b"\n\n",
    ))  # fmt: skip


def _refused(rng: Random, told: Row) -> Iterator[Piece]:
    told = told if rng.random() < 0.5 else _mutated(rng, told)
    body = rng.choice((written(told), written(told), b"", b"<html>502</html>", written(odd(rng)), written([told])))
    headers = [
        ("retry-after", rng.choice(("1", "0", "-1", "abc", "1e99", "9" * 30, "Fri, 01 Jan 2100 00:00:00 GMT", "\x80")))
    ]
    return _sent(rng, body, "application/json", rng.choice(STATUSES), headers if rng.random() < 0.5 else [])


def _sent(
    rng: Random,
    body: bytes,
    kind: str,
    status: int = 200,
    headers: list[tuple[str, str]] | None = None,
    *,
    wrong: bool = True,
) -> Iterator[Piece]:
    """The answer in pieces; where ``wrong`` sometimes with a framing that is none."""
    lines, ends = [*(headers or []), ("content-type", kind)], list[Piece]()
    bent = wrong and rng.random() < 0.2
    chunked = rng.random() < 0.5
    if bent:
        lines, body, ends = _bent(rng, lines, body)
        chunked = ("transfer-encoding", "chunked") in lines
        if rng.random() < 0.1:
            yield rng.choice(BEFORE)
    else:
        lines.append(("transfer-encoding", "chunked") if chunked else ("content-length", str(len(body))))
    lines.append(("connection", "close" if bent else "keep-alive"))
    head = "".join(f"{name}: {value}\r\n" for name, value in lines)
    yield f"HTTP/1.1 {status} X\r\n{head}\r\n".encode("latin-1", "replace")
    cuts = sorted(rng.randrange(len(body) + 1) for _ in range(rng.choice((0, 0, 1, 3, 12))))
    for first, last in zip([0, *cuts], [*cuts, len(body)], strict=True):
        if piece := body[first:last]:
            yield framed(piece) if chunked else piece
        if wrong and rng.random() < 0.005:
            yield rng.choice((0.05, 0.3))
    if chunked:
        yield rng.choice((b"", b"zz\r\n", b"0\r\nx: y\r\n\r\n")) if bent else b"0\r\n\r\n"
    yield from ends
    if not bent:
        if wrong and rng.random() < 0.02:
            yield rng.choice((b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", b"surplus"))
        yield KEEP


BEFORE = (b"HTTP/1.1 100 Continue\r\n\r\n", b"\r\n", b"HTTP/0.9 200\r\n\r\n", b"garbage", b"HTTP/1.1 2x0 OK\r\n\r\n")
Lines = list[tuple[str, str]]


def _bent(rng: Random, lines: Lines, body: bytes) -> tuple[Lines, bytes, list[Piece]]:
    """Headers that lie, and bodies cut short; what comes after the body."""
    part = body[: rng.randrange(len(body) + 1)]
    coding = rng.choice(("gzip", "br", "zstd", "deflate", "x", "identity"))
    length = rng.choice((str(len(body) + 9), str(max(0, len(body) - 9)), "-1", "abc", "9" * 25))
    many = [(f"x-{n}", "v") for n in range(rng.choice((50, 200, 3000)))]
    return rng.choice((
        ([*lines, ("content-length", length)], body, []),
        ([*lines, ("content-encoding", coding)], body, []),
        ([*lines, ("content-encoding", "gzip")], packed(body)[: rng.choice((None, -5))], []),
        (lines, part, [rng.choice((RESET, RESET, HANG))]),
        (lines, part, []),
        ([("content-type", rng.choice(("text/html", ""))), ("set-cookie", "a=b"), ("x-y", "z" * 9000)], body, []),
        (lines + many, body, []),
        ([("transfer-encoding", "chunked"), ("content-length", "5"), *lines], body, []),
        ([*lines, ("transfer-encoding", "chunked")], part, []),
    ))  # fmt: skip
