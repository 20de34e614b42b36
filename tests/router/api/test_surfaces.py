"""What a client meets before any policy decides: names, keys, nonsense; and what an operator looks at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import yaml
from openai import OpenAI

from tests.fakes import World, policy_of, until, world

CHAT: dict[str, Any] = {"model": "default", "messages": [{"role": "user", "content": "hi"}]}
KEY = {"authorization": "Bearer sk-mine"}


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("world"), client_keys=("sk-mine",)) as found:
        until(lambda: httpx.get(f"{found.url}/health/ready").json()["policies"][0]["student"]["ready"])
        yield found


def post(proxy: World, body: Any = CHAT, headers: Any = None, **more: Any) -> httpx.Response:
    more = more or {"json": body}
    return httpx.post(f"{proxy.url}/v1/chat/completions", headers=KEY | (headers or {}), **more)


def without(key: str) -> dict[str, Any]:
    return {k: v for k, v in CHAT.items() if k != key}


@pytest.mark.parametrize(
    ("content", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b"\xff\xfe", None),
        (b"[" * 100_000, None),
        (without("model"), "model"),
        (CHAT | {"model": 5}, "model"),
        (without("messages"), "messages"),
        (CHAT | {"messages": []}, "messages"),
        (CHAT | {"messages": "hi"}, "messages"),
        (CHAT | {"messages": ["hi"]}, "messages[0]"),
        (CHAT | {"messages": [{"content": "hi"}]}, "messages[0]"),
        (CHAT | {"stream": "yes"}, "stream"),
        (CHAT | {"stream": True, "stream_options": 1}, "stream_options"),
    ],
)
def test_nonsense_is_told_in_openais_shape(proxy: World, content: Any, param: str | None) -> None:
    answer = post(proxy, content=content) if isinstance(content, bytes) else post(proxy, content)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert answer.headers["x-locum-request-id"]


@pytest.mark.parametrize("wrong", [{"model": None}, {"tools": "x"}, {"metadata": [1]}, {"logprobs": "x"}])
def test_odd_but_passable_requests_are_the_backends_to_judge(proxy: World, wrong: dict[str, Any]) -> None:
    assert post(proxy, CHAT | wrong).status_code == (400 if "model" in wrong else 200)


def test_an_unknown_model_names_what_there_is(proxy: World) -> None:
    with (
        OpenAI(base_url=f"{proxy.url}/v1", api_key="sk-mine", max_retries=0) as client,
        pytest.raises(openai.NotFoundError, match=r"locum/default, gpt-4o, locum/student, locum/teacher") as caught,
    ):
        client.chat.completions.create(model="gpt-9", messages=CHAT["messages"])
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize("name", ["default", "locum/default", "gpt-4o", "default/student", "locum/default/student"])
def test_every_name_of_a_policy_works(proxy: World, name: str) -> None:
    assert post(proxy, CHAT | {"model": name}).headers["x-locum-tier"] == "student"


def test_models_are_listed_as_openai_lists_them(proxy: World) -> None:
    with OpenAI(base_url=f"{proxy.url}/v1", api_key="sk-mine", max_retries=0) as client:
        names = [m.id for m in client.models.list()]
        assert names == ["locum/default", "gpt-4o", "locum/student", "locum/teacher"]
        assert client.models.retrieve("locum/default").owned_by == "locum"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("gpt-9")


@pytest.mark.parametrize("tier", ["student", "teacher", "Teacher"])
def test_the_header_forces_a_tier(proxy: World, tier: str) -> None:
    answer = post(proxy, headers={"x-locum-tier": tier})
    assert (answer.headers["x-locum-tier"], answer.headers["x-locum-reason"]) == (tier.lower(), "override")


def test_another_tier_is_refused(proxy: World) -> None:
    answer = post(proxy, headers={"x-locum-tier": "oracle"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "x-locum-tier"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models"])
def test_a_wrong_key_is_refused(proxy: World, path: str) -> None:
    for headers in ({}, {"authorization": "Bearer sk-else"}):
        answer = httpx.request("POST" if "chat" in path else "GET", proxy.url + path, headers=headers, json=CHAT)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert "sk-" not in answer.text


def test_a_request_too_large_is_refused_before_it_is_read(proxy: World) -> None:
    answer = post(proxy, content=b"x" * (65 * 2**20))
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"


def test_other_paths_answer_in_openais_shape(proxy: World) -> None:
    answer = httpx.post(f"{proxy.url}/v1/nothing", headers=KEY, json={})
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_health_and_metrics_need_no_key(proxy: World) -> None:
    assert httpx.get(f"{proxy.url}/health/live").json() == {"status": "live"}
    ready = httpx.get(f"{proxy.url}/health/ready")
    assert ready.status_code == 200
    assert ready.json()["policies"][0]["student"] == {"ready": True, "version": "base"}
    post(proxy)
    text = httpx.get(f"{proxy.url}/metrics").text
    assert 'locum_requests_total{policy="default",reason="score",status_class="2xx",tier="student"}' in text
    assert "sk-" not in text


def test_the_conversation_is_named_by_header_metadata_or_what_it_goes_on_with(proxy: World) -> None:
    def conversation(*said: str, headers: dict[str, str] | None = None, **body: Any) -> str:
        turns = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(said)]
        answer = post(proxy, CHAT | {"messages": turns} | body, headers or {})
        record = proxy.record(answer.headers["x-locum-request-id"])
        owner, _, name = record.conversation_id.partition("/")
        assert owner == record.owner
        return str(name)

    assert conversation("hi", headers={"x-locum-conversation": "mine"}) == "mine"
    assert conversation("hi", metadata={"conversation_id": "ours"}) == "ours"
    opening = conversation("a story, please")
    assert conversation("a story, please", "hello there friend", "more") == opening
    assert conversation("a story, please") != opening, "somebody else may say the same"
    assert conversation("else") != opening


def test_an_edited_policy_is_followed_and_a_broken_one_is_not(tmp_path: Path) -> None:
    with world(tmp_path) as found:

        def names() -> list[str]:
            return [m["id"] for m in httpx.get(f"{found.url}/v1/models").json()["data"]]

        def tier() -> str:
            return httpx.post(f"{found.url}/v1/chat/completions", json=CHAT).headers["x-locum-tier"]

        until(lambda: tier() == "student")
        edited = policy_of(found.student, found.teacher, aliases=["gpt-5"], objective={"student_share": 0})
        found.policy_file.write_text(yaml.safe_dump(edited))
        until(lambda: "gpt-5" in names())
        assert tier() == "teacher"
        found.policy_file.write_text("name: [broken")
        found.policy_file.with_name("other").touch()
        assert tier() == "teacher"
        found.policy_file.write_text(yaml.safe_dump(edited | {"aliases": ["gpt-6"]}))
        until(lambda: "gpt-6" in names())
