"""No client waits for ever, in silence, or for a stream of which nobody tells that it broke."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.fakes import DEADLINE_SECONDS, World, world

CHAT = {"messages": [{"role": "user", "content": "hi"}]}
COMMENT = ": keep-alive"


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The client hears of silence soon, and has time."""
    with world(tmp_path_factory.mktemp("patient"), limits={"keep_alive_seconds": 0.1, "total_seconds": 3}) as found:
        yield found


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    limits = {"first_token_seconds": 0.6, "total_seconds": 1, "keep_alive_seconds": 0.1}
    with world(tmp_path_factory.mktemp("hasty"), limits=limits) as found:
        yield found


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as found:
        yield found


def ask(proxy: World, *, stream: bool) -> httpx.Response:
    body = CHAT | {"model": "locum/teacher", "stream": stream}
    return httpx.post(f"{proxy.url}/v1/chat/completions", json=body, timeout=DEADLINE_SECONDS)


def events(answer: httpx.Response) -> list[str]:
    return [event for event in answer.text.split("\n\n") if event]


def error_in(event: str) -> Any:
    return orjson.loads(event.removeprefix("data: "))["error"]


def after_a_comment(proxy: World, **script: Any) -> tuple[str, list[str]]:
    """A stream whose teacher answers so, once the client had a comment: its request id, and the events after that."""
    heard = threading.Event()
    proxy.teacher.always(after=heard, **script)
    body = CHAT | {"model": "locum/teacher", "stream": True}
    with httpx.stream("POST", f"{proxy.url}/v1/chat/completions", json=body, timeout=DEADLINE_SECONDS) as answer:
        lines = answer.iter_lines()
        try:
            assert next(lines) == COMMENT
        finally:
            heard.set()
        return answer.headers["x-locum-request-id"], [line for line in lines if line and line != COMMENT]


def test_a_slow_teachers_stream_is_kept_alive_by_comments(patient: World) -> None:
    request_id, found = after_a_comment(patient)
    assert found[-1] == "data: [DONE]"
    assert any("there" in event for event in found)
    record = patient.record(request_id)
    assert (record.status, record.tier, record.answers[0].message["content"]) == (200, "teacher", "hello there friend")


def test_a_stream_without_a_first_token_ends_with_an_error_event(hasty: World) -> None:
    hasty.teacher.always(hang=True)
    answer = ask(hasty, stream=True)
    assert answer.status_code == 200  # a comment went first
    assert error_in(events(answer)[-1])["code"] == "time_limit_exceeded"
    assert hasty.record(answer.headers["x-locum-request-id"]).status == 504
    assert hasty.teacher.seen[-1].left.wait(DEADLINE_SECONDS)


def test_a_stream_that_stalls_ends_with_an_error_event_and_is_counted(patient: World) -> None:
    patient.teacher.always(hang_after=2)
    before = broken(patient)
    answer = ask(patient, stream=True)
    assert "hello" in answer.text
    assert COMMENT in answer.text
    assert error_in(events(answer)[-1])["type"] == "upstream_error"
    assert broken(patient) == before + 1
    record = patient.record(answer.headers["x-locum-request-id"])
    assert (record.status, record.answers[0].finish_reason) == (504, None)


def test_a_whole_answer_that_takes_too_long_is_a_timeout(hasty: World) -> None:
    hasty.teacher.always(hang=True)
    answer = ask(hasty, stream=False)
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "time_limit_exceeded"
    assert hasty.teacher.seen[-1].left.wait(DEADLINE_SECONDS)


def test_a_refusal_after_a_comment_is_told_as_an_event(patient: World) -> None:
    error = {"message": "no", "type": "invalid_request_error"}
    request_id, found = after_a_comment(patient, status=400, error=error)
    assert error_in(found[-1])["type"] == "invalid_request_error"
    assert patient.record(request_id).status == 400


def test_a_quick_answer_has_no_comments(proxy: World) -> None:
    proxy.teacher.always()
    assert COMMENT not in ask(proxy, stream=True).text


def test_a_rate_limited_teacher_says_when_to_come_again(proxy: World) -> None:
    before = len(proxy.teacher.seen)
    proxy.teacher.always(status=429, headers={"retry-after": "7"})
    proxy.student.always(status=500)
    answers = [ask(proxy, stream=False) for _ in range(3)]
    assert {a.status_code for a in answers} == {429}  # no circuit opens over it
    assert answers[0].headers["retry-after"] == "7"
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 7
    assert len(proxy.teacher.seen) == before + 1, "it is left alone until then"


def broken(proxy: World) -> float:
    lines = httpx.get(f"{proxy.url}/metrics").text.splitlines()
    counts = [line.split()[-1] for line in lines if line.startswith("locum_streams_broken_total{")]
    return sum(map(float, counts))
