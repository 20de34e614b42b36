"""What clients send: good requests to every endpoint, then made wrong, in bodies, headers, framing and manners."""

from __future__ import annotations

import re
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any

import zstandard

from benchmarks.fuzz.mutation import LONG, mutated, odd, packed, written

Row = dict[str, Any]
KEYS = ("sk-client-a", "sk-client-b")
MODELS = ("claude", "claude-sonnet-4-5", "fuzzed", "gpt-4o", "locum/fuzzed", "locum/student", "locum/teacher")
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PIXEL = f"data:image/png;base64,{PNG}"
TEXTS = (
    "hi",
    "What does the fox do?",
    "Summarise: " + "the fox jumps over the dog. " * 40,
    "Füchse 狐 🦊",
    "a@example.com wrote",
    "1+1=",
)
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}


NO_HEAD = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\xff]")
"""What no parser of heads takes: the connection ends, perhaps before the client sees why."""


@dataclass(frozen=True)
class Request:
    """Bytes to be sent, and how. ``leaves_after``: how many of them, then the client is gone; ``reads``: how many
    bytes of the answer it waits for, None: all. ``pieces``: in how many writes. ``keyed``: with a good key.
    ``another``: what it names is another key's. ``native``: the server's bytes may be what the client gets."""

    number: int
    data: bytes
    path: str
    pieces: int = 1
    leaves_after: int | None = None
    reads: int | None = None
    keyed: bool = True
    another: bool = False
    native: bool = False


@dataclass
class Seen:
    """Ids that answers brought, by key: what later requests name."""

    ids: dict[tuple[str, str], deque[str]] = field(default_factory=dict)

    def add(self, kind: str, key: str, found: str) -> None:
        self.ids.setdefault((kind, key), deque(maxlen=50)).append(found)

    def one(self, rng: Random, kind: str, key: str) -> str | None:
        """One of them. It draws the same from ``rng`` where there is none."""
        drawn, known = rng.random(), self.ids.get((kind, key))
        return known[int(drawn * len(known))] if known else None


def text(rng: Random) -> str:
    return rng.choice(TEXTS)


def tool(name: str = "look_up") -> Row:
    return {"type": "function", "function": {"name": name, "description": "d", "parameters": SCHEMA}}


def turns(rng: Random) -> list[Row]:
    """A chat's messages; some with images, some in the middle of a tool loop."""
    said: list[Row] = [{"role": "system", "content": "Be brief."}] if rng.random() < 0.3 else []
    for _ in range(rng.choice((0, 0, 0, 1, 3))):
        said += [{"role": "user", "content": text(rng)}, {"role": "assistant", "content": text(rng)}]
    said.append({"role": "user", "content": text(rng)})
    if rng.random() < 0.15:
        parts = [{"type": "text", "text": text(rng)}, {"type": "image_url", "image_url": {"url": PIXEL}}]
        said[-1]["content"] = parts
    if rng.random() < 0.2:
        call = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"a": 1}'}}
        said.append({"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "hm"})
        said.append({"role": "tool", "tool_call_id": "call_1", "content": "42"})
    return said


def some(rng: Random, fields: Row, share: float = 0.15) -> Row:
    return {name: value for name, value in fields.items() if rng.random() < share}


def chat(rng: Random, seen: Seen, key: str) -> tuple[str, Row]:
    body = {"model": rng.choice(MODELS), "messages": turns(rng), "stream": rng.random() < 0.5}
    more = {
        "temperature": 0.7, "top_p": 0.9, "n": rng.choice((1, 2)), "max_tokens": 50, "max_completion_tokens": 50,
        "stop": ["\n"],
        "seed": 1, "user": "somebody", "metadata": {"task": "t", "conversation_id": "c"}, "logprobs": True,
        "top_logprobs": 2,
        "tools": [tool(), tool("other")], "tool_choice": "auto", "parallel_tool_calls": True, "store": True,
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA, "strict": True}},
        "stream_options": {"include_usage": True}, "reasoning_effort": "low", "logit_bias": {"50256": -100},
        "prediction": {"type": "content", "content": "x"}, "service_tier": "auto", "prompt_cache_key": "k",
        "frequency_penalty": 0.1, "modalities": ["text"], "functions": [tool()["function"]], "extra": {"deep": [1]},
    }  # fmt: skip
    return "/v1/chat/completions", body | some(rng, more)


def items(rng: Random) -> list[Row]:
    said: list[Row] = [{"role": "user", "content": [{"type": "input_text", "text": text(rng)}]}]
    if rng.random() < 0.2:
        said[0]["content"].append({"type": "input_image", "image_url": PIXEL, "detail": "auto"})
    if rng.random() < 0.3:
        said.append({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"})
        said.append({"type": "function_call", "call_id": "c1", "name": "look_up", "arguments": "{}", "id": "fc_1"})
        output = rng.choice(("42", [{"type": "input_text", "text": "42"}, {"type": "input_image", "image_url": PIXEL}]))
        said.append({"type": "function_call_output", "call_id": "c1", "output": output})
    return said


def responses(rng: Random, seen: Seen, key: str) -> tuple[str, Row]:
    asked = text(rng) if rng.random() < 0.5 else items(rng)
    body = {"model": rng.choice(MODELS), "input": asked, "stream": rng.random() < 0.5}
    more = {
        "instructions": "Be brief.", "store": False, "max_output_tokens": 50, "temperature": 1,
        "include": ["reasoning.encrypted_content"],
        "tools": [{"type": "function", "name": "look_up", "parameters": SCHEMA, "strict": True},
        {"type": "web_search"}],
        "text": {"format": {"type": "json_schema", "name": "s", "schema": SCHEMA}}, "reasoning": {"effort": "low",
        "summary": "auto"},
        "metadata": {"a": "b"}, "truncation": "auto", "parallel_tool_calls": False,
        "tool_choice": {"type": "function", "name": "look_up"},
        "background": False, "user": "u", "top_logprobs": 1, "prompt_cache_key": "k", "conversation": "conv_1",
    }  # fmt: skip
    goes_on = rng.random() < 0.4
    if (before := seen.one(rng, "resp", key)) and goes_on:
        body["previous_response_id"] = before
    return "/v1/responses", body | some(rng, more)


def messages(rng: Random, seen: Seen, key: str) -> tuple[str, Row]:
    said: list[Row] = [{"role": "user", "content": text(rng)}]
    if rng.random() < 0.3:
        said[0]["content"] = [
            {"type": "text", "text": text(rng), "cache_control": {"type": "ephemeral"}},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        ]
    if rng.random() < 0.3:
        thought = {"type": "thinking", "thinking": "hm", "signature": "sig"}
        said.append(
            {
                "role": "assistant",
                "content": [thought, {"type": "tool_use", "id": "tu_1", "name": "look_up", "input": {"a": 1}}],
            }
        )
        said.append(
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "tu_1", "content": [{"type": "text", "text": "42"}]}
                ],
            }
        )
    body = {"model": rng.choice(MODELS), "max_tokens": 64, "messages": said, "stream": rng.random() < 0.5}
    more = {
        "system": rng.choice(("Be brief.", [{"type": "text", "text": "Be brief.",
        "cache_control": {"type": "ephemeral"}}])),
        "tools": [{"name": "look_up", "description": "d", "input_schema": SCHEMA}, {"type": "web_search_20250305",
        "name": "web_search"}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True}, "thinking": {"type": "enabled",
        "budget_tokens": 1024},
        "stop_sequences": ["x"], "temperature": 0.5, "top_k": 5, "metadata": {"user_id": "u"}, "service_tier": "auto",
    }  # fmt: skip
    return "/v1/messages", body | some(rng, more)


def count(rng: Random, seen: Seen, key: str) -> tuple[str, Row]:
    body = messages(rng, seen, key)[1]
    return "/v1/messages/count_tokens", {k: v for k, v in body.items() if k not in ("max_tokens", "stream")}


def completions(rng: Random, seen: Seen, key: str) -> tuple[str, Row]:
    body = {"model": rng.choice(MODELS), "prompt": rng.choice((text(rng), [text(rng)])), "stream": rng.random() < 0.5}
    more = {"max_tokens": 9, "echo": True, "logprobs": 2, "n": 2, "best_of": 2, "suffix": "", "stop": "x", "user": "u"}
    return "/v1/completions", body | some(rng, more)


def embeddings(rng: Random, seen: Seen, key: str) -> tuple[str, Row]:
    asked = rng.choice((text(rng), [text(rng), text(rng)], [1, 2, 3], [[1, 2], [3]]))
    return "/v1/embeddings", {"model": rng.choice(MODELS), "input": asked} | some(
        rng, {"encoding_format": rng.choice(("base64", "float")), "dimensions": 8, "user": "u"}, 0.3
    )


def feedback(rng: Random, seen: Seen, key: str) -> tuple[str, Row]:
    about = seen.one(rng, "req", key) or "req_0"
    return "/v1/feedback", {"request_id": about} | rng.choice(({"score": rng.random()}, {"verdict": "good"}))


POSTED: tuple[Callable[[Random, Seen, str], tuple[str, Row]], ...] = (
    chat, chat, chat, responses, responses, messages, messages, count, completions, embeddings, feedback,
)  # fmt: skip


def looked_up(rng: Random, seen: Seen, key: str) -> tuple[str, str]:
    """(method, path) of a request without a body."""
    kept = seen.one(rng, "resp", key) or "resp_0"
    query = rng.choice(
        (
            "",
            "",
            "?limit=5",
            "?limit=-1&order=x",
            "?after=%00&limit=99999999999999999999",
            "?stream=true",
            "?%ff=%",
            "?a[]=" + "x" * 999,
        )
    )
    path = rng.choice((
        f"/v1/responses/{kept}", f"/v1/responses/{kept}/input_items", f"/v1/responses/{kept}/cancel", "/v1/models",
        "/v1/models/gpt-4o", "/v1/models/locum/student", "/v1/models/" + rng.choice(("%2e%2e", "é", "x" * 5000, "",
        "a/b/c")),
        "/health/live", "/health/ready", "/metrics", "/openapi.json", "/", "/v1", "/v1/", "/admin",
        "/v1/chat/completions/",
        "//v1/models", "/v1/../metrics", "/%00", "/v1/files", "/v1/batches/x", "/docs",
        "/v1/chat/completions%0d%0ax: y",
    ))  # fmt: skip
    return rng.choice(
        ("GET", "GET", "GET", "GET", "DELETE", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "TRACE", "BREW")
    ), path + query


def request(seed: int, number: int, seen: Seen) -> Request:
    """The request of this number: the same for the same seed, but for ids that answers brought."""
    rng = Random(f"{seed}:{number}")
    key = rng.choice((KEYS[0], KEYS[0], KEYS[1]))
    if rng.random() < 0.02:
        method, path = another(rng, seen)
        return Request(number, _head(method, path, [f"authorization: Bearer {KEYS[1]}"]) + b"\r\n", path, another=True)
    method, body = "POST", b""
    if rng.random() < 0.15:
        method, path = looked_up(rng, seen, key)
    else:
        path, good = rng.choice(POSTED)(rng, seen, key)
        body = _body(rng, good, seen, key)
    lines, keyed = _lines(rng, key)
    lines, body, broken = _framed(rng, lines, body)
    head = _head(method, path, lines, rng)
    data = head + b"\r\n" + body
    broken |= method == "BREW" or " " in path or NO_HEAD.search(head) is not None
    if rng.random() < 0.01:
        data, broken = _scrambled(rng, data), True
    leaves = rng.randrange(1, len(data) + 1) if rng.random() < (0.3 if broken else 0.03) else None
    return Request(
        number,
        data,
        path,
        pieces=rng.choice((1, 1, 1, 2, 5)),
        leaves_after=len(data) if broken and leaves is None else leaves,
        reads=rng.choice((0, 1, 500)) if rng.random() < 0.05 else None,
        keyed=keyed,
    )


def another(rng: Random, seen: Seen) -> tuple[str, str]:
    """(method, path) of a look at what the first key has, by the second one."""
    kept = f"/v1/responses/{seen.one(rng, 'resp', KEYS[0]) or 'resp_0'}"
    return rng.choice((("GET", kept), ("DELETE", kept), ("GET", f"{kept}/input_items"), ("POST", f"{kept}/cancel")))


def _body(rng: Random, good: Row, seen: Seen, key: str) -> bytes:
    if rng.random() < 0.15:
        return written(good)
    data = written(mutated(rng, good, lambda: rng.choice(POSTED)(rng, seen, key)[1]))
    if rng.random() < 0.88:
        return data
    at = rng.randrange(len(data) + 1)
    return rng.choice((
        data[:at], data + rng.choice((b"}", b"\x00", b" {}", data)), b"\xef\xbb\xbf" + data,
        data.decode("utf-8", "replace").encode("utf-16"), written(odd(rng)),
        data[:at] + rng.randbytes(rng.randrange(8)) + data[at:],
    ))  # fmt: skip


def _lines(rng: Random, key: str) -> tuple[list[str], bool]:
    """Header lines; whether the key among them is a good one."""
    keyed = rng.random() > 0.02
    given = key if keyed else rng.choice(("", "sk-wrong", f"{key} ", f"x{key}", "é"))
    if not keyed and given.strip() == key:
        keyed = True
    lines = [rng.choice((f"authorization: Bearer {given}", f"x-api-key: {given}", f"Authorization: bearer {given}"))]
    lines.append(
        "content-type: "
        + rng.choice(
            ("application/json",) * 6
            + ("text/plain", "", "application/json; charset=utf-16", "multipart/form-data; boundary=x")
        )
    )
    extra = {
        "x-locum-tier": rng.choice(("student", "teacher", "STUDENT", "both", "\x80", "")),
        "x-locum-conversation": rng.choice(("c1", "x" * 3000, "é", "../x", "\x1b[31m")),
        "accept": rng.choice(("text/event-stream", "*/*", "image/png")), "accept-encoding": "gzip, br, zstd",
        "anthropic-version": "2023-06-01", "anthropic-beta": rng.choice(("context-1m-2025-08-07", "x,y", "é")),
        "origin": "http://evil.example",
        "x-request-id": rng.choice(("id", "x" * 999)), "user-agent": "fuzz", "x-forwarded-for": "1.2.3.4",
        "connection": "close",
        "openai-organization": "o", "idempotency-key": "k", "x-stainless-retry-count": "1",
        "cookie": "a=b; " * rng.choice((1, 500)),
        "traceparent": "00-0-0-0", rng.choice(("x-odd", "x" * 2000)): "v" * rng.choice(LONG[:3]),
    }  # fmt: skip
    lines += [f"{name}: {value}" for name, value in extra.items() if rng.random() < 0.04]
    if rng.random() < 0.01:
        lines += [f"x-{n}: {n}" for n in range(rng.choice((50, 500, 5000)))]
    return lines, keyed


@cache
def bomb() -> bytes:
    """100 MB in 100 KB."""
    return packed(b" " * 10**8)


def _framed(rng: Random, lines: list[str], body: bytes) -> tuple[list[str], bytes, bool]:
    """The header lines with those of the body's framing; whether it is one that may never end."""
    if rng.random() < 0.04:
        name, coded = rng.choice((
            ("gzip", packed(body)), ("deflate", zlib.compress(body)), ("zstd", zstandard.compress(body)),
            ("br", body),
            ("gzip", body), ("gzip, gzip", packed(packed(body))), ("identity", body), ("x", body),
            ("gzip", bomb()), ("zstd", zstandard.compress(b" " * 10**7)), ("gzip", packed(body)[:-9]),
        ))  # fmt: skip
        lines, body = [*lines, f"content-encoding: {name}"], coded
    if rng.random() < 0.1:
        size = rng.choice((1, 7, 1000, 65536)) if len(body) < 10_000 else 65536
        chunks = b"".join(
            b"%x\r\n%b\r\n" % (len(p), p) for p in (body[i : i + size] for i in range(0, len(body), size))
        )
        end, broken = rng.choice((
            (b"0\r\n\r\n", False), (b"0\r\n\r\n", False), (b"0\r\n\r\n", False), (b"0\r\nx: y\r\n\r\n", False), (b"",
            True),
            (b"zz\r\n", True), (b"-1\r\n\r\n", True), (b"fffffffffffffffff\r\n", True),
        ))  # fmt: skip
        return [*lines, "transfer-encoding: chunked"], chunks + end, broken
    if rng.random() < 0.02:
        lie = rng.choice(
            (str(len(body) + 50), "-1", "abc", "99999999999999999999", f"{len(body)}, {len(body)}", str(10**9))
        )
        return [*lines, f"content-length: {lie}"], body, True
    return [*lines, f"content-length: {len(body)}"], body, False


def _head(method: str, path: str, lines: list[str], rng: Random | None = None) -> bytes:
    version = rng.choice(("HTTP/1.1",) * 60 + ("HTTP/1.0",)) if rng else "HTTP/1.1"
    named = [f"{method} {path} {version}", "host: locum", *lines]
    return "".join(f"{line}\r\n" for line in named).encode("utf-8", "surrogatepass")


def _scrambled(rng: Random, data: bytes) -> bytes:
    """A few bytes of the whole, head and all, changed."""
    found = bytearray(data)
    for _ in range(rng.randrange(1, 6)):
        found[rng.randrange(min(len(found), 400))] = rng.choice((0, 10, 13, 32, 58, 128, 255))
    return bytes(found)
