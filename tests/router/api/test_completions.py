"""Text completions: OpenAI's own client asks and reads them; what a chat cannot do is said."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest
from openai import BadRequestError, OpenAI

from tests.fakes import Script, World, until, world

ASKED: dict[str, Any] = {"model": "default", "prompt": "Once upon a time"}


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("world")) as found:
        until(lambda: httpx.get(f"{found.url}/health/ready").json()["policies"][0]["student"]["ready"])
        yield found


@pytest.fixture(autouse=True)
def usual(proxy: World) -> None:
    for upstream in (proxy.student, proxy.teacher):
        upstream.always()
        upstream.seen.clear()


@pytest.fixture
def client(proxy: World) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{proxy.url}/v1", api_key="none", max_retries=0) as found:
        yield found


def post(proxy: World, **changes: Any) -> httpx.Response:
    return httpx.post(f"{proxy.url}/v1/completions", json=ASKED | changes)


def test_openais_client_reads_a_whole_completion(proxy: World, client: OpenAI) -> None:
    found = client.completions.create(**ASKED, stop=["\n"], seed=7, temperature=0, extra_body={"new_field": [1]})
    assert found.object == "text_completion"
    assert found.id == "cmpl-1"
    assert (found.choices[0].index, found.choices[0].text) == (0, "hello there friend")
    assert found.choices[0].finish_reason == "stop"
    assert found.choices[0].logprobs is None
    assert found.usage
    assert found.usage.total_tokens == 110
    asked = proxy.student.seen[-1].body
    assert asked["messages"] == [{"role": "user", "content": "Once upon a time"}]
    assert (asked["stop"], asked["seed"], asked["temperature"], asked["new_field"]) == (["\n"], 7, 0, [1])
    assert "prompt" not in asked


def test_openais_client_reads_a_stream(client: OpenAI) -> None:
    chunks = list(client.completions.create(**ASKED, stream=True, stream_options={"include_usage": True}))
    assert {c.object for c in chunks} == {"text_completion"}
    assert "".join(choice.text for c in chunks for choice in c.choices) == "hello there friend"
    assert [choice.finish_reason for c in chunks for choice in c.choices][-1] == "stop"
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == 10


def test_a_stream_ends_as_openais_does_and_passes_comments(proxy: World) -> None:
    proxy.teacher.always(raw=b': waiting\n\ndata: {"id":"chatcmpl-9","choices":[{"index":0,"delta":{"content":"a"},'
                         b'"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n')  # fmt: skip
    found = post(proxy, model="locum/teacher", stream=True).text
    assert found.startswith(": waiting\n\n")
    assert found.endswith("data: [DONE]\n\n")
    assert '"text":"a"' in found


@pytest.mark.parametrize(("given", "sent"), [({}, 16), ({"max_tokens": None}, 16), ({"max_tokens": 300}, 300)])
def test_the_limit_is_openais_default_unless_given(proxy: World, given: dict[str, Any], sent: int) -> None:
    assert post(proxy, **given).status_code == 200
    asked = proxy.student.seen[-1].body
    assert asked["max_tokens"] == sent
    assert "max_completion_tokens" not in asked


@pytest.mark.parametrize("stream", [False, True])
def test_echo_puts_the_prompt_before_every_choice(proxy: World, client: OpenAI, stream: bool) -> None:
    for upstream in (proxy.student, proxy.teacher):
        upstream.answer = lambda body: Script(raw=raw(stream))
    got = client.completions.create(**ASKED, echo=True, n=2, stream=stream)
    texts = {0: "", 1: ""}
    for answer in got if stream else [got]:  # type: ignore[union-attr]
        for choice in answer.choices:  # type: ignore[union-attr]
            texts[choice.index] += choice.text
    assert texts == {0: "Once upon a time I", 1: "Once upon a time we"}


def raw(stream: bool) -> bytes:
    """Two choices, whole or streamed."""
    said = [(0, " I"), (1, " we")]
    if not stream:
        message = [{"index": n, "message": {"content": t}, "finish_reason": "stop"} for n, t in said]
        return orjson.dumps({"id": "chatcmpl-2", "choices": message, "created": 1, "model": "tiny"})
    deltas = [{"index": n, "delta": {"content": c}} for n, t in said for c in t]
    ends = [{"index": n, "delta": {}, "finish_reason": "stop"} for n, _ in said]
    chunks = [{"id": "chatcmpl-2", "choices": [c], "created": 1, "model": "tiny"} for c in (*deltas, *ends)]
    return b"".join(b"data: " + orjson.dumps(c) + b"\n\n" for c in chunks) + b"data: [DONE]\n\n"


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_come_back_as_four_lists(proxy: World, client: OpenAI, stream: bool) -> None:
    got = client.completions.create(**ASKED, logprobs=0, stream=stream)
    found = [c.logprobs for a in (got if stream else [got]) for c in a.choices if c.logprobs]  # type: ignore[union-attr]
    assert [t for p in found for t in p.tokens or ()] == ["hello", " there", " friend"]
    assert [v for p in found for v in p.token_logprobs or ()] == [-0.01] * 3
    assert [v for p in found for v in p.text_offset or ()] == [0, 5, 11]
    assert [t for p in found for t in p.top_logprobs or ()] == [{"hello": -0.01}, {" there": -0.01}, {" friend": -0.01}]
    asked = proxy.student.seen[-1].body
    assert (asked["logprobs"], asked["top_logprobs"]) == (True, 0)


def test_one_prompt_in_a_list_is_one_prompt(proxy: World) -> None:
    assert post(proxy, prompt=["hi"]).json()["choices"][0]["text"] == "hello there friend"
    assert proxy.student.seen[-1].body["messages"][0]["content"] == "hi"


@pytest.mark.parametrize(
    ("changes", "param", "says"),
    [
        ({"prompt": None}, "prompt", "must be given"),
        ({"prompt": []}, "prompt", "must be given"),
        ({"prompt": {"a": 1}}, "prompt", "must be given"),
        ({"prompt": ["a", "b"]}, "prompt", "one prompt a request"),
        ({"prompt": [1, 2]}, "prompt", "token ids"),
        ({"prompt": [[1, 2]]}, "prompt", "token ids"),
        ({"suffix": "."}, "suffix", "fill in"),
        ({"best_of": 3}, "best_of", "must be 1"),
        ({"best_of": 3, "n": 2}, "best_of", "must be 1"),
        ({"echo": 1}, "echo", "true or false"),
        ({"echo": True, "logprobs": 1}, "echo", "do not go together"),
        ({"logprobs": True}, "logprobs", "whole number"),
        ({"logprobs": -1}, "logprobs", "whole number"),
        ({"stream": "yes"}, "stream", "true or false"),
        ({"model": None}, "model", "must be given"),
    ],
)
def test_what_a_chat_cannot_do_is_said(proxy: World, changes: dict[str, Any], param: str, says: str) -> None:
    answer = post(proxy, **changes)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert says in answer.json()["error"]["message"]


def test_harmless_leftovers_of_old_clients_are_taken(proxy: World) -> None:
    assert post(proxy, suffix=None, best_of=1, echo=False, logprobs=None).status_code == 200
    assert post(proxy, best_of=2, n=2).status_code == 200


def test_a_refusal_reaches_the_client_as_it_came(proxy: World, client: OpenAI) -> None:
    error = {"message": "no such words", "type": "invalid_request_error", "param": "prompt", "code": "too_long"}
    proxy.teacher.always(status=400, error=error)
    with pytest.raises(BadRequestError, match="no such words"):
        client.completions.create(model="locum/teacher", prompt="x")


def test_a_stream_that_dies_says_so(proxy: World) -> None:
    proxy.teacher.always(die_after=2)
    found = post(proxy, model="locum/teacher", stream=True).text
    assert "upstream" in found.rsplit("data: ", 1)[-1]


def test_it_is_recorded_like_a_chat(proxy: World) -> None:
    record = proxy.record(post(proxy).headers["x-locum-request-id"])
    assert record.request["messages"] == [{"role": "user", "content": "Once upon a time"}]
    assert record.answers[0].message["content"] == "hello there friend"


def test_broken_parts_of_an_answer_break_nothing(proxy: World) -> None:
    choice = {"message": {"role": "assistant", "content": 5}, "index": "x", "logprobs": {"content": [1, {"token": 2}]}}
    answer = {"choices": [choice, {"index": 1, "message": {}}]}
    proxy.teacher.always(raw=orjson.dumps(answer))
    found = post(proxy, model="locum/teacher")
    assert found.status_code == 200
    assert [c["text"] for c in found.json()["choices"]] == [""]  # the second one nobody asked for
