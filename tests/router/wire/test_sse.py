"""Cutting and assembling streams, wherever the network cut them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from router.contracts.records import Usage
from router.wire import sse
from router.wire.sse import DONE, Cutter, encode, is_usage_only, parse, payload, read, split, work
from router.wire.threads import LARGE_BYTES
from router.wire.usage import ToldUsage
from tests.fakes import collected


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_come_whole_wherever_the_bytes_are_cut(newline: bytes, size: int) -> None:
    lines = [b'data: {"a": 1}', b"", b": keep-alive", b"", b'data: {"b": 2}', b"", b"data: [DONE]", b"", b""]
    text = newline.join(lines)
    cutter, events = Cutter(), []
    for at in range(0, len(text), size):
        events += split(cutter.feed(text[at : at + size]))
    assert b"".join(events) == text
    assert [payload(e) for e in events] == [b'{"a": 1}', b"", b'{"b": 2}', DONE]
    assert split(cutter.feed(b"")) == []


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n", b"\r\n\n", b"\n\r", b"\r\n\r"])
def test_every_blank_line_ends_an_event_wherever_it_is_cut(end: bytes) -> None:
    text = b"data: 1" + end + b"data: 2" + end
    for at in range(len(text) + 1):
        cutter = Cutter()
        found = cutter.feed(text[:at]) + cutter.feed(text[at:]) + cutter.rest()
        assert found == text
        assert [p for p in map(payload, split(found)) if p] == [b"1", b"2"]


def test_one_newline_of_two_bytes_ends_no_event() -> None:
    cutter = Cutter()
    assert cutter.feed(b"event: x\r\ndata: 1\r\n") == b""
    assert cutter.feed(b"\r\ndata") == b"event: x\r\ndata: 1\r\n\r\n"
    assert (cutter.size, cutter.rest(), cutter.size) == (4, b"data", 0)


class Looked(bytes):
    """Bytes that count how many of them are searched."""

    total = 0

    def __radd__(self, before: bytes) -> Looked:
        return Looked(before + bytes(self))

    def rfind(self, *args: Any) -> int:
        Looked.total += len(self)
        return super().rfind(*args)


def test_a_long_event_in_small_pieces_is_looked_at_once() -> None:
    pieces = [b"data: ", *[Looked(b"A" * 64)] * 1000, b"\n\n"]
    cutter, found = Cutter(), b""
    for piece in pieces:
        found += cutter.feed(piece)
    assert found == b"".join(pieces)
    assert Looked.total < 2 * len(found)


def test_an_event_of_several_lines_is_one_payload() -> None:
    event = b'event: x\nid: 1\ndata: {"a":\ndata: 1}\n\n'
    assert parse(event) == {"a": 1}


def test_what_is_no_object_parses_to_none() -> None:
    assert [parse(b"data: " + d + b"\n\n") for d in (b"[DONE]", b"{", b"[1]", b"")] == [None] * 4


def chunk(delta: object, **more: object) -> bytes:
    return encode({"model": "m", "choices": [{"index": 0, "delta": delta, **more}]})


def test_a_stream_adds_up_to_its_answer() -> None:
    logprobs = {"content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -1}]}
    found = collected(
        b"".join(
            [
                chunk({"role": "assistant", "content": ""}),
                chunk({"content": "ab"}, logprobs=logprobs),
                chunk({"content": "c"}),
                encode({"choices": [{"index": 1, "delta": {"content": "another choice"}}]}),
                chunk({}, finish_reason="stop"),
                encode({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3}}),
                b"data: [DONE]\n\n",
            ]
        )
    )
    assert found.message == {"role": "assistant", "content": "abc"}
    assert (found.finish_reason, found.model, found.tokens) == ("stop", "m", 3)
    assert found.logprobs == [-0.5, -1.0]
    assert found.usage == ToldUsage(Usage(input_tokens=5, output_tokens=3))


def test_parallel_tool_calls_are_put_together_by_index() -> None:
    def part(index: int, **function: str) -> bytes:
        named = {"id": f"c{index}"} if "name" in function else {}
        return chunk({"tool_calls": [{"index": index, "function": function, **named}]})

    pieces = [part(0, arguments="{"), part(1, arguments="{}"), part(0, arguments="}")]
    found = collected(b"".join([part(0, name="f"), part(1, name="g"), *pieces]))
    calls = found.message["tool_calls"]
    assert [(c["id"], c["function"]) for c in calls] == [
        ("c0", {"name": "f", "arguments": "{}"}),
        ("c1", {"name": "g", "arguments": "{}"}),
    ]


@pytest.mark.parametrize(
    "malformed",
    [
        {"choices": None},
        {"choices": [None, 3]},
        {"choices": [{"delta": 5}]},
        {"choices": [{"delta": {"tool_calls": [{"index": -1}, None, {"index": "x"}, {"index": 10**9}]}}]},
        {"choices": [{"delta": {}, "logprobs": {"content": [None, {"logprob": "x"}]}}]},
        {"usage": {"prompt_tokens": None, "prompt_tokens_details": 4}},
    ],
)
def test_malformed_chunks_are_passed_over(malformed: object) -> None:
    assert collected(b"data: " + orjson.dumps(malformed) + b"\n\n").finish_reason is None


def test_only_the_chunk_without_choices_is_the_usage_chunk() -> None:
    assert is_usage_only({"choices": [], "usage": {}})
    assert not is_usage_only({"choices": [], "usage": None})
    assert not is_usage_only({"choices": [{}], "usage": {}})


@pytest.mark.parametrize("size", [5, 6, 7, 1000])
def test_events_of_any_newlines_are_split_alike_in_whatever_pieces_they_are_searched(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "PIECE_BYTES", size)
    for end in (b"\r\n\r\n", b"\r\r", b"\n\r\n", b"\r\n\n"):
        events = [b"data: " + b"a" * n + end for n in range(20)]
        assert split(b"".join(events)) == events


@pytest.mark.parametrize("newline", [b"\n", b"\r", b"\r\n"])
def test_an_event_of_a_million_lines_is_none(newline: bytes) -> None:
    event = b"data: {" + newline + (b"data: " + newline) * 1_000_000 + b"data: }" + newline * 2
    assert read(event) == (None, False)
    assert payload(event) == b""
    assert read(event.replace(b"data: " + newline, b"", 999_995)) == ({}, True)


def test_many_short_events_are_more_work_than_their_bytes() -> None:
    assert work(b": \n\n" * 65_536) > LARGE_BYTES
    chunk = encode({"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {"content": "word"}}], "model": "x" * 40})
    assert work(chunk * 100) == len(chunk * 100)
