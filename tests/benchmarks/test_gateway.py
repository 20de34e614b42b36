"""The gateway benchmark's own parts: the mock answers as a model server does, the generator counts what it got."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import orjson
import pytest

from benchmarks.gateway.load import KINDS, PLAIN, SLOW, STREAMED, Generator, Load
from benchmarks.gateway.mock import STUDENT, TEACHER, TOKENS, USAGE, chunks, whole
from benchmarks.gateway.prompts import COUNT, prompts
from benchmarks.gateway.rounds import DIRECT, RAW, Plan, compared, figures, running_mock
from benchmarks.gateway.wire import Inbox

HEAD_END = b"\r\n\r\n"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with running_mock(min(os.sched_getaffinity(0))) as (_, port):
        yield port


def load(port: int, answers: str, **changes: Any) -> Load:
    few = Load(port, TEACHER, "sk-1", answers, concurrency=4, warm_seconds=0.0, seconds=0.0, requests=40)
    return replace(few, **changes)


def events(pieces: list[bytes]) -> list[Any]:
    """The stream's events, unframed; ``None`` is [DONE]."""
    frames = b"".join(pieces).partition(HEAD_END)[2]
    found = []
    while frames:
        size, _, rest = frames.partition(b"\r\n")
        event, frames = rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        if event:
            assert event.startswith(b"data: ") and event.endswith(b"\n\n")
        for data in event.removesuffix(b"\n\n").split(b"\n\n"):
            found += [] if not data else [None if data == b"data: [DONE]" else orjson.loads(data[6:])]
    return found


@pytest.mark.parametrize("answers", KINDS)
def test_every_request_is_answered_whole_and_counted(port: int, answers: str) -> None:
    seen = Generator(load(port, answers)).run()
    assert (seen.failed, seen.problem) == (0, "")
    assert 40 <= seen.requests < 40 + 4
    assert len(seen.latencies) == len(seen.first_bytes) == seen.requests
    assert all(0 < first <= all_ for first, all_ in zip(seen.first_bytes, seen.latencies, strict=True))
    one = whole(TEACHER, False) if answers == PLAIN else b"".join(chunks(TEACHER, False, False))
    assert seen.content_bytes == seen.requests * len(one.partition(HEAD_END)[2])


def test_what_is_no_answer_counts_as_failed(port: int) -> None:
    class Wrong(Generator):
        def _send(self, connection: Any) -> None:
            self._messages = [m.replace(b"POST", b"GET ", 1) for m in self._messages]
            super()._send(connection)

    seen = Wrong(load(port, PLAIN, requests=1)).run()
    assert seen.requests == 0
    assert seen.failed >= 1000
    assert "200 OK" in seen.problem


def test_a_students_answer_brings_each_tokens_probability_where_it_was_asked_for() -> None:
    choice = orjson.loads(whole(STUDENT, True).partition(HEAD_END)[2])["choices"][0]
    assert [t["token"] for t in choice["logprobs"]["content"]] == TOKENS
    assert orjson.loads(whole(STUDENT, False).partition(HEAD_END)[2])["choices"][0]["logprobs"] is None
    streamed = [e["choices"][0] for e in events(chunks(STUDENT, True, False))[:-1]]
    assert [c["logprobs"]["content"][0]["token"] for c in streamed] == TOKENS


@pytest.mark.parametrize("with_usage", [False, True])
def test_a_stream_is_a_chunk_a_token_then_the_usage_if_asked_and_done(with_usage: bool) -> None:
    *found, done = events(chunks(TEACHER, False, with_usage))
    tokens = found[: len(TOKENS)]
    assert done is None
    assert [e["choices"][0]["delta"]["content"] for e in tokens] == TOKENS
    assert [e["choices"][0]["finish_reason"] for e in tokens] == [None] * (len(TOKENS) - 1) + ["stop"]
    assert [e["usage"] for e in found[len(TOKENS) :]] == ([USAGE] if with_usage else [])


def test_a_message_is_found_however_its_bytes_arrive() -> None:
    for message in (whole(TEACHER, False), b"".join(chunks(TEACHER, True, True))):
        for size in (1, 7, 1000):
            inbox = Inbox()
            parts = [message[at : at + size] for at in range(0, len(message), size)]
            *early, last = [inbox.feed(part) for part in parts]
            assert set(early) <= {None}
            assert last is not None
            assert b"".join(last) == message


def test_the_prompts_are_many_and_always_the_same() -> None:
    assert len({text for text, _ in prompts()}) == COUNT
    assert prompts() == prompts()


def test_rows_are_compared_with_others_of_their_cell(port: int) -> None:
    row = figures(Generator(load(port, PLAIN)).run()) | {"answers": PLAIN, "at_once": 4, "workers": 1}
    rows = [row | {"name": DIRECT}, row | {"name": RAW, "cpu_us": 100.0}, row | {"name": "locum", "cpu_us": 150.0}]
    rows.append(row | {"name": "locum, 2 workers", "cpu_us": 165.0, "workers": 2, "per_second": 2 * row["per_second"]})
    _, _, locum, two = compared(rows)
    assert (locum["cpu_to_raw"], locum["first_added_ms"]) == (1.5, 0.0)
    assert (two["per_second_to_one_worker"], two["cpu_to_one_worker"]) == (2.0, 1.1)
    assert two["capacity_per_second"] == pytest.approx(2e6 / 165, abs=0.1)


def test_paced_streams_are_measured_with_most_requests_at_once() -> None:
    assert Plan(["locum"], concurrency=(1, 16)).cells == [
        (PLAIN, 1), (PLAIN, 16), (STREAMED, 1), (STREAMED, 16), (SLOW, 16),
    ]  # fmt: skip
