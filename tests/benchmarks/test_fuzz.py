"""The fuzzers themselves, and a minute each of what they send."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from benchmarks.fuzz.answers import Answers, well
from benchmarks.fuzz.connection import Answer
from benchmarks.fuzz.mutation import Pairs, Raw, mutated, written
from benchmarks.fuzz.requests import KEYS, Request, Seen, request
from benchmarks.fuzz.session import SIDES, fuzz, plain
from benchmarks.fuzz.verdicts import SECRET, of_client, of_upstream
from benchmarks.scripted import Asked

SECONDS = 60 if os.environ.get("LOCUM_CI") else 10
SEED = 1
GOOD = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "n": 1, "stream": False}


@pytest.mark.parametrize("side", SIDES)
def test_nothing_that_is_said_breaks_the_proxy(side: str, tmp_path: Path) -> None:
    found = fuzz(side, SEED, tmp_path, seconds=SECONDS)
    assert found.faults == [], f"again: python -m benchmarks.fuzz --side {side} --seed {SEED}"
    assert found.statuses[200] > 10
    assert found.records >= len(found.served) > 10


def test_a_request_is_the_same_for_the_same_seed() -> None:
    assert [request(3, n, Seen()) for n in range(200)] == [request(3, n, Seen()) for n in range(200)]
    assert [plain(3, n) for n in range(50)] == [plain(3, n) for n in range(50)]
    assert request(3, 1, Seen()) != request(4, 1, Seen())


def test_ids_that_answers_brought_change_nothing_but_what_is_named() -> None:
    seen = Seen()
    for key in KEYS:
        seen.add("resp", key, "resp_0")
        seen.add("req", key, "req_0")
    without = {n: request(5, n, Seen()) for n in range(400)}
    same = [n for n in without if request(5, n, seen).data == without[n].data]
    assert len(same) > 300  # the others go on from the response that there now is


def test_some_requests_are_good_and_most_are_not() -> None:
    bodies = [request(1, n, Seen()).data.partition(b"\r\n\r\n")[2] for n in range(400)]
    readable = [b for b in bodies if b and is_json(b)]
    assert 100 < len(readable) < 390


def test_what_is_put_into_a_value_is_written_as_it_is() -> None:
    assert written({"a": [1, Raw(b"NaN"), None]}) == b'{"a":[1,NaN,null]}'
    assert written(Pairs([("a", 1), ("a", 2)])) == b'{"a":1,"a":2}'
    assert json.loads(written(GOOD)) == GOOD
    kinds = {written(mutated(Random(n), GOOD, lambda: GOOD)) for n in range(300)}
    assert len(kinds) > 150


@pytest.mark.parametrize("streamed", [False, True])
def test_servers_that_are_well_answer_well_and_the_others_often_do_not(streamed: bool) -> None:
    def said(answers: Any, number: int) -> bytes:
        asked = Asked("fuzzed-student", "/v1/chat/completions", written({"stream": streamed, "m": f"#{number}#"}))
        return b"".join(p for p in answers(asked) if isinstance(p, bytes))

    good = [said(well, n) for n in range(50)]
    assert all(a.startswith(b"HTTP/1.1 200 X\r\n") for a in good)
    assert [said(Answers(1), n) for n in range(50)] == [said(Answers(1), n) for n in range(50)]
    again = Answers(1)
    assert len({said(again, 7) for _ in range(20)}) > 5  # a retry gets another answer


CHAT = Request(1, b"POST", "/v1/chat/completions")
CLAUDES = Request(1, b"POST", "/v1/messages", native=True)
OURS = b'{"type": "error", "error": {"type": "api_error", "message": "internal error; see the log"}}'
OK = Answer(200, {"content-type": "application/json"}, b"{}", whole=True)
EVENTS = {"content-type": "text/event-stream"}


def faults() -> Iterator[tuple[Request, Answer, bool]]:
    """(request, answer, whether the model servers are well) that must not be."""
    error = b'{"error": {"message": "m", "type": "upstream_error"}}'
    for side in (True, False):
        yield CHAT, Answer(late=True), side
        yield CHAT, Answer(), side
        yield CHAT, Answer(200, EVENTS, b"data: {}\n\n", whole=True), side
        yield CHAT, Answer(200, {}, b"{"), side
        yield CHAT, Answer(500, {}, error, whole=True), side
        yield CHAT, Answer(200, {}, SECRET.encode(), whole=True), side
        yield CHAT, Answer(200, {"x-a": SECRET}, b"{}", whole=True), side
    yield CLAUDES, Answer(500, {}, OURS, whole=True), False
    yield CHAT, Answer(502, {}, error, whole=True), True
    yield CHAT, Answer(502, {}, b"<html>", whole=True), False
    yield Request(1, b"", "/v1/chat/completions", keyed=False), OK, True
    yield Request(1, b"", "/v1/responses/resp_1", another=True), OK, True
    yield Request(1, b"", "/v1/responses"), Answer(200, EVENTS, b'data: {"type": "x"}\n\n', whole=True), False
    yield Request(1, b"", "/v1/messages"), Answer(200, EVENTS, b"data: {\n\n", whole=True), False


@pytest.mark.parametrize(("asked", "answer", "well"), faults())
def test_what_must_not_come_back_is_told(asked: Request, answer: Answer, well: bool) -> None:
    assert (of_client if well else of_upstream)(asked, answer) is not None


def test_refusals_and_failures_of_others_are_no_faults() -> None:
    refused = Answer(400, {"content-type": "application/json"}, b'{"error": {"message": "m", "type": "t"}}', whole=True)
    down = Answer(503, {"content-type": "application/json"}, b'{"error": {"message": "m", "type": "t"}}', whole=True)
    assert of_client(CHAT, refused) is of_client(CHAT, OK) is None
    assert of_upstream(CHAT, refused) is of_upstream(CHAT, down) is None
    its_own = Answer(500, {}, OURS.replace(b"internal error; see the log", b"Overloaded"), whole=True)
    assert of_upstream(CLAUDES, its_own) is None
    assert of_upstream(replace(CLAUDES, native=False), its_own) is not None
    left = Request(1, b"POST", "/v1/chat/completions", leaves_after=2)
    assert of_client(left, Answer()) is None


def is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True
