"""Bodies and answers that are made to cost a proxy much CPU: what ``benchmarks.hostile`` plays."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from benchmarks.scripted import DONE, STOP, STREAM, Asked, Piece, Row, answer, chunk, completion, event, healthy

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
MODEL = "default"
MB = 2**20


@dataclass(frozen=True)
class Kind:
    """A request that is sent, to its ``path``, and what whoever is asked answers. ``body`` makes its bytes anew."""

    name: str
    path: str
    body: Callable[[], bytes]
    script: Callable[[Asked], Iterable[Piece]] = healthy
    teacher: bool = False


def asking(fields: Row) -> bytes:
    return json.dumps({"model": MODEL, **fields}).encode()


def said(content: Any, **more: Any) -> bytes:
    return asking({"messages": [{"role": "user", "content": content}], **more})


def around(inner: bytes) -> bytes:
    """A chat request with one more field, ``x``, as it stands."""
    return said("hi")[:-1] + b', "x": ' + inner + b"}"


def by_schema(schema: Any) -> Callable[[], bytes]:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    return lambda: said("hi", response_format=form)


def doubling(word: str, depth: int) -> Row:
    """Each definition asks the one before it twice."""
    chain: Row = {"d0": {"type": "object"}}
    for n in range(1, depth + 1):
        before = {"$ref": f"#/$defs/d{n - 1}"}
        chain[f"d{n}"] = {word: [{**before, "minProperties": 9}, {**before, "maxProperties": 0}]}
    return {"$defs": chain, "$ref": f"#/$defs/d{depth}"}


def calls(turns: int, name: str = "x") -> Iterable[Row]:
    for _ in range(turns):
        call = {"id": name, "type": "function", "function": {"name": "f", "arguments": "{}"}}
        yield {"role": "assistant", "content": None, "tool_calls": [call]}
        yield {"role": "tool", "tool_call_id": name, "content": "x"}


def talk(*messages: Row, **more: Any) -> bytes:
    return asking({"messages": [*messages, {"role": "user", "content": "hi"}], **more})


def items(turns: int) -> Iterable[Row]:
    for _ in range(turns):
        yield {"type": "function_call", "call_id": "x", "name": "f", "arguments": "{}"}
        yield {"type": "function_call_output", "call_id": "x", "output": "y"}


def blocks(turns: int) -> Iterable[Row]:
    for _ in range(turns):
        yield {"role": "assistant", "content": [{"type": "tool_use", "id": "x", "name": "f", "input": {}}]}
        yield {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x", "content": "y"}]}


def once(make: Callable[[], Row]) -> Callable[[Asked], Iterable[Piece]]:
    """A server that answers this, whose bytes are made but once: what is measured is the proxy."""
    made = cache(lambda: answer(make()))
    return lambda asked: (made(),)


def whole(text: str) -> Callable[[Asked], Iterable[Piece]]:
    """A server that answers this, without what would say how long its tokens are."""
    return once(lambda: completion({"content": text}, choice={"logprobs": None}))


def stream(*pieces: bytes) -> Callable[[Asked], Iterable[Piece]]:
    return lambda asked: (STREAM, *pieces, STOP, DONE)


def one_line(size: int) -> Iterable[bytes]:
    """One event in pieces of a kilobyte."""
    line = event(chunk({"content": "a" * size}))
    return [line[at : at + 1024] for at in range(0, len(line), 1024)]


STREAMED: Row = {"stream": True}
KINDS = (
    Kind("plain", CHAT, lambda: said("hi")),
    Kind("plain, streamed", CHAT, lambda: said("hi", **STREAMED)),
    Kind("16 MB of one letter", CHAT, lambda: said("a" * 16 * MB)),
    Kind("16 MB of words", CHAT, lambda: said("ab1. " * (16 * MB // 5))),
    Kind(
        "16 MB beyond ASCII",
        CHAT,
        lambda: json.dumps(
            {"model": MODEL, "messages": [{"role": "user", "content": "漢é " * (2 * MB)}]}, ensure_ascii=False
        ).encode(),
    ),
    Kind("60 MB in one word", CHAT, lambda: said("a" * 60 * MB)),
    Kind("65 MB, too long", CHAT, lambda: said("a" * 65 * MB)),
    Kind("half a million keys", CHAT, lambda: said("hi", **{f"k{i}": i for i in range(500_000)})),
    Kind("half a million messages", CHAT, lambda: asking({"messages": [{"role": "user", "content": "h"}] * 500_000})),
    Kind("half a million parts", CHAT, lambda: said([{"type": "text", "text": "a"}] * 500_000)),
    Kind("numbers, 16 MB", CHAT, lambda: around(b"[" + b"1," * (8 * MB) + b"1]")),
    Kind("empty lists, 16 MB", CHAT, lambda: around(b"[" + b"[]," * (5 * MB) + b"1]")),
    Kind("nested 100,000 deep", CHAT, lambda: around(b"[" * 100_000 + b"]" * 100_000)),
    Kind("an integer of a million digits", CHAT, lambda: around(b"9" * 1_000_000)),
    Kind(
        "20,000 tools",
        CHAT,
        lambda: said(
            "hi",
            tools=[
                {"type": "function", "function": {"name": f"f{i}", "parameters": {"type": "object"}}}
                for i in range(20_000)
            ],
        ),
    ),
    Kind(
        "100,000 stop words and labels",
        CHAT,
        lambda: said("hi", stop=["x"] * 100_000, metadata={f"k{i}": "v" for i in range(100_000)}, user="u" * MB),
    ),
    Kind("15,000 calls with one id", CHAT, lambda: talk(*calls(15_000)), teacher=True),
    Kind("schema, 2**25 anyOf", CHAT, by_schema(doubling("anyOf", 25)), whole('{"a": 1}')),
    Kind("schema, 2**25 allOf", CHAT, by_schema(doubling("allOf", 25)), whole('{"a": 1}')),
    Kind("schema, endless reference", CHAT, by_schema({"$ref": "#"}), whole('{"a": 1}')),
    Kind(
        "schema, backtracking pattern",
        CHAT,
        by_schema({"properties": {"a": {"pattern": "^(a+)+$"}}, "patternProperties": {"^(a|a)*$": {}}}),
        whole(json.dumps({"a": "a" * 60 + "!"})),
    ),
    Kind("schema, a million values", CHAT, by_schema({"enum": list(range(1_000_000))}), whole("5")),
    Kind(
        "schema, a large answer",
        CHAT,
        by_schema({"items": {"properties": {"a": {"type": "integer"}}}, "uniqueItems": True}),
        whole(json.dumps([{"a": i} for i in range(100_000)])),
    ),
    Kind("emails without an end", CHAT, lambda: said("a@b.co " * 300_000)),
    Kind("a million digits", CHAT, lambda: said("4111 1111 1111 1111 " * 50_000)),
    Kind("telephone numbers", CHAT, lambda: said("+1 (555) 555-5555 " * 55_000)),
    Kind("secrets", CHAT, lambda: said("password=sk-" + "a-" * 200_000 + "eyJa.eyJa." * 60_000)),
    Kind("a million spaces", CHAT, lambda: said("x" + " " * 1_000_000 + "\n" * 500_000)),
    Kind("brackets and fences", CHAT, lambda: said("(" * 300_000 + "```" * 200_000 + "-" * 300_000)),
    Kind(
        "20,000 items",
        RESPONSES,
        lambda: asking({"store": False, "input": [{"role": "user", "content": "x"}] * 20_000}),
    ),
    Kind(
        "items with one call id", RESPONSES, lambda: asking({"store": False, "input": [*items(10_000)]}), teacher=True
    ),
    Kind("16 MB kept", RESPONSES, lambda: asking({"input": "ab1. " * (16 * MB // 5)})),
    Kind(
        "20,000 turns",
        MESSAGES,
        lambda: asking(
            {
                "max_tokens": 5,
                "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}] * 10_000
                + [{"role": "user", "content": "z"}],
            }
        ),
    ),
    Kind(
        "blocks with one tool's id",
        MESSAGES,
        lambda: asking({"max_tokens": 5, "messages": [{"role": "user", "content": "a"}, *blocks(10_000)]}),
        teacher=True,
    ),
    Kind(
        "16 MB to count",
        f"{MESSAGES}/count_tokens",
        lambda: asking({"messages": [{"role": "user", "content": "a " * (8 * MB)}]}),
    ),
    Kind("16 MB to complete", "/v1/completions", lambda: asking({"prompt": "word " * (3 * MB)})),
    Kind("400,000 texts to embed", "/v1/embeddings", lambda: asking({"input": ["word"] * 400_000})),
    Kind("feedback of 60 KB", "/v1/feedback", lambda: asking({"request_id": "x" * 60_000, "score": 1})),
    Kind("answer, 16 MB of words", CHAT, lambda: said("hi"), whole("ab1 cd2 " * (2 * MB))),
    Kind("answer, one word again and again", CHAT, lambda: said("hi"), whole("go " * (2 * MB))),
    Kind(
        "answer, 100,000 calls",
        CHAT,
        lambda: said("hi"),
        once(
            lambda: completion(
                {"content": None, "tool_calls": [next(iter(calls(1)))["tool_calls"][0]] * 100_000},
                "tool_calls",
                choice={"logprobs": None},
            )
        ),
    ),
    Kind(
        "answer, log-probabilities of 100,000 tokens",
        CHAT,
        lambda: said("hi", logprobs=True),
        once(lambda: completion(text="a " * 100_000)),
    ),
    Kind("stream, one line of 8 MB in pieces", CHAT, lambda: said("hi", **STREAMED), stream(*one_line(8 * MB))),
    Kind(
        "stream, 100,000 events at once",
        CHAT,
        lambda: said("hi", **STREAMED),
        stream(event(chunk({"content": "go "})) * 100_000),
    ),
    Kind(
        "stream, a million comments",
        CHAT,
        lambda: said("hi", **STREAMED),
        stream(b": \n\n" * 1_000_000, event(chunk({"content": "a"}))),
    ),
    Kind("stream, no line end in 8 MB", CHAT, lambda: said("hi", **STREAMED), stream(*[b"a" * 1024] * 8192)),
    Kind(
        "stream, a call in 50,000 pieces",
        CHAT,
        lambda: said("hi", **STREAMED),
        stream(
            event(
                chunk(
                    {
                        "tool_calls": [
                            {"index": 0, "id": "x", "type": "function", "function": {"name": "f", "arguments": ""}}
                        ]
                    }
                )
            ),
            event(chunk({"tool_calls": [{"index": 0, "function": {"arguments": "ab"}}]})) * 50_000,
        ),
    ),
)
