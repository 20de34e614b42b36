"""Feedback: joined to the record it is about; a wrong id, score or verdict is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fakes import World, until, world

KEY = {"authorization": "Bearer sk-mine"}
CHAT = {"model": "default", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("world"), client_keys=("sk-mine",)) as found:
        yield found


@pytest.fixture
def answered(proxy: World) -> str:
    """The id of a request that was just answered; its record may not be on disk yet."""
    headers = httpx.post(f"{proxy.url}/v1/chat/completions", json=CHAT, headers=KEY).headers
    return headers["x-locum-request-id"]


def post(proxy: World, **body: Any) -> httpx.Response:
    return httpx.post(f"{proxy.url}/v1/feedback", json=body, headers=KEY)


@pytest.mark.parametrize(
    ("said", "score"),
    [({"score": 0.25}, 0.25), ({"score": 1}, 1), ({"verdict": "good"}, 1), ({"verdict": "neutral"}, 0.5),
     ({"verdict": "bad"}, 0)],
)  # fmt: skip
def test_feedback_joins_its_record(proxy: World, answered: str, said: dict[str, Any], score: float) -> None:
    answer = post(proxy, request_id=answered, **said)
    assert answer.status_code == 200
    assert answer.json() == {"object": "feedback", "request_id": answered, "score": score}
    until(lambda: proxy.record(answered).feedback == score)


def test_the_last_word_holds(proxy: World, answered: str) -> None:
    post(proxy, request_id=answered, verdict="good")
    post(proxy, request_id=answered, verdict="bad")
    until(lambda: proxy.record(answered).feedback == 0)


def test_a_stream_can_be_judged_as_soon_as_it_has_ended(proxy: World) -> None:
    with httpx.stream("POST", f"{proxy.url}/v1/chat/completions", json=CHAT | {"stream": True}, headers=KEY) as stream:
        stream.read()
    assert post(proxy, request_id=stream.headers["x-locum-request-id"], score=1).status_code == 200


def test_it_is_counted(proxy: World, answered: str) -> None:
    def count() -> float:
        lines = httpx.get(f"{proxy.url}/metrics").text.splitlines()
        wanted = 'locum_feedback_total{policy="default",verdict="bad"}'
        return next((float(line.split()[-1]) for line in lines if line.startswith(wanted)), 0.0)

    before = count()
    post(proxy, request_id=answered, score=0.3)
    assert count() == before + 1


def test_an_unknown_request_is_not_found(proxy: World) -> None:
    answer = post(proxy, request_id="req_nothing", score=1)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "request_not_found"
    assert answer.json()["error"]["param"] == "request_id"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"score": 1}, "request_id"),
        ({"request_id": 5, "score": 1}, "request_id"),
        ({"request_id": "r"}, "score"),
        ({"request_id": "r", "score": 1, "verdict": "good"}, "score"),
        ({"request_id": "r", "score": 1.5}, "score"),
        ({"request_id": "r", "score": -1}, "score"),
        ({"request_id": "r", "score": True}, "score"),
        ({"request_id": "r", "score": "1"}, "score"),
        ({"request_id": "r", "verdict": "fine"}, "verdict"),
        ({"request_id": "r", "verdict": ["good"]}, "verdict"),
    ],
)
def test_nonsense_is_told_in_openais_shape(proxy: World, body: dict[str, Any], param: str) -> None:
    answer = post(proxy, **body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_it_needs_the_key_and_a_small_body(proxy: World) -> None:
    assert httpx.post(f"{proxy.url}/v1/feedback", json={}).status_code == 401
    assert post(proxy, request_id="r", score=1, comment="x" * 70_000).status_code == 413
