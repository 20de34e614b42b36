"""No client waits for ever, in silence, or for a stream of which nobody tells that it broke."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.fakes import World, world

LIMITS = {"first_token_seconds": 0.6, "total_seconds": 1.5, "keep_alive_seconds": 0.1}
CHAT = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("world"), limits=LIMITS) as found:
        yield found


def ask(proxy: World, *, stream: bool) -> httpx.Response:
    return httpx.post(f"{proxy.url}/v1/chat/completions", json=CHAT | {"model": "locum/teacher", "stream": stream})


def events(answer: httpx.Response) -> list[str]:
    return [event for event in answer.text.split("\n\n") if event]


def error_in(event: str) -> Any:
    return orjson.loads(event.removeprefix("data: "))["error"]


def test_a_slow_teachers_stream_is_kept_alive_by_comments(proxy: World) -> None:
    proxy.teacher.always(seconds=0.35)
    answer = ask(proxy, stream=True)
    found = events(answer)
    assert found[0] == ": keep-alive"
    assert found[-1] == "data: [DONE]"
    assert "there" in answer.text
    assert answer.headers["x-locum-request-id"]
    record = proxy.record(answer.headers["x-locum-request-id"])
    assert (record.status, record.tier, record.answers[0].message["content"]) == (200, "teacher", "hello there friend")


def test_a_stream_without_a_first_token_ends_with_an_error_event(proxy: World) -> None:
    proxy.teacher.always(hang=True)
    answer = ask(proxy, stream=True)
    assert answer.status_code == 200  # a comment went first
    assert error_in(events(answer)[-1])["code"] == "time_limit_exceeded"
    assert proxy.record(answer.headers["x-locum-request-id"]).status == 504
    assert proxy.teacher.seen[-1].left.wait(5)


def test_a_stream_that_stalls_ends_with_an_error_event_and_is_counted(proxy: World) -> None:
    proxy.teacher.always(hang_after=2)
    before = broken(proxy)
    answer = ask(proxy, stream=True)
    assert "hello" in answer.text
    assert ": keep-alive" in answer.text
    assert error_in(events(answer)[-1])["type"] == "upstream_error"
    assert broken(proxy) == before + 1
    record = proxy.record(answer.headers["x-locum-request-id"])
    assert (record.status, record.answers[0].finish_reason) == (504, None)


def test_a_whole_answer_that_takes_too_long_is_a_timeout(proxy: World) -> None:
    proxy.teacher.always(hang=True)
    answer = ask(proxy, stream=False)
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "time_limit_exceeded"
    assert proxy.teacher.seen[-1].left.wait(5)


def test_a_refusal_after_a_comment_is_told_as_an_event(proxy: World) -> None:
    proxy.teacher.always(seconds=0.25, status=400, error={"message": "no", "type": "invalid_request_error"})
    answer = ask(proxy, stream=True)
    assert error_in(events(answer)[-1])["type"] == "invalid_request_error"
    assert proxy.record(answer.headers["x-locum-request-id"]).status == 400


def test_a_quick_answer_has_no_comments(proxy: World) -> None:
    proxy.teacher.always()
    assert "keep-alive" not in ask(proxy, stream=True).text


def test_a_rate_limited_teacher_says_when_to_come_again(tmp_path: Path) -> None:
    with world(tmp_path) as proxy:
        proxy.teacher.always(status=429, headers={"retry-after": "7"})
        proxy.student.always(status=500)
        answers = [ask(proxy, stream=False) for _ in range(3)]
        assert {a.status_code for a in answers} == {429}  # no circuit opens over it
        assert answers[-1].headers["retry-after"] == "7"


def broken(proxy: World) -> float:
    lines = httpx.get(f"{proxy.url}/metrics").text.splitlines()
    counts = [line.split()[-1] for line in lines if line.startswith("locum_streams_broken_total{")]
    return sum(map(float, counts))
