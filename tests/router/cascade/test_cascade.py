"""The whole proxy against scripted upstreams, through the real ``openai`` client."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from router.contracts.records import AnswerKind
from tests.fakes import DEADLINE_SECONDS, Script, World, until, world

MESSAGES: Any = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("world")) as found:
        yield found


@pytest.fixture
def proxy(shared: World) -> World:
    """Both circuits closed, both upstreams well-behaved."""
    for upstream, tier in ((shared.student, "student"), (shared.teacher, "teacher")):
        upstream.always()
        with OpenAI(base_url=f"{shared.url}/v1", api_key="unused", max_retries=0) as client:
            until(lambda tier=tier, client=client: ask(client, model=f"locum/{tier}")[1]["x-locum-tier"] == tier)
        upstream.seen.clear()
    shared.student.seen.clear()
    return shared


@pytest.fixture
def client(proxy: World) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{proxy.url}/v1", api_key="unused", max_retries=0) as found:
        yield found


def ask(client: OpenAI, *, model: str = "gpt-4o", messages: Any = MESSAGES, **more: Any) -> tuple[Any, Any]:
    raw = client.chat.completions.with_raw_response.create(model=model, messages=messages, **more)
    return raw.parse(), raw.headers


def stream(client: OpenAI, *, model: str = "gpt-4o", messages: Any = MESSAGES, **more: Any) -> tuple[list[Any], Any]:
    raw = client.chat.completions.with_raw_response.create(model=model, messages=messages, stream=True, **more)
    return list(raw.parse()), raw.headers


def text_of(chunks: list[Any]) -> str:
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def test_the_student_answers_whole(proxy: World, client: OpenAI) -> None:
    answer, headers = ask(client)
    assert answer.choices[0].message.content == "hello there friend"
    assert answer.model == "tiny"
    assert answer.choices[0].logprobs is None
    assert headers["x-locum-tier"] == "student"
    assert headers["x-locum-reason"] == "score"
    assert headers["x-locum-policy"] == "default"
    assert headers["x-locum-bundle"] == "base"
    assert not proxy.teacher.seen
    assert proxy.student.seen[0].body["logprobs"] is True
    record = proxy.record(headers["x-locum-request-id"])
    assert (record.status, record.tier, record.answers[0].signals.tokens) == (200, "student", 3)
    assert record.answers[0].cost_usd == Decimal("0.0000026")
    assert record.counterfactual_usd == Decimal("0.00013")
    assert 0 < record.overhead_seconds < record.seconds


def test_the_student_streams(proxy: World, client: OpenAI) -> None:
    chunks, headers = stream(client)
    assert text_of(chunks) == "hello there friend"
    assert all(c.choices for c in chunks), "the usage chunk was not asked for"
    assert all(c.choices[0].logprobs is None for c in chunks)
    assert headers["x-locum-tier"] == "student"
    assert "x-locum-cost-usd" not in headers
    assert not proxy.teacher.seen


@pytest.mark.parametrize("model", ["locum/student", "locum/teacher"])
def test_a_stream_costs_what_the_whole_answer_costs(proxy: World, client: OpenAI, model: str) -> None:
    cached = {"prompt_tokens": 100, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 50}}
    proxy.student.always(usage=cached)
    proxy.teacher.always(usage=cached)
    answer, headers = ask(client, model=model)
    chunks, streamed_headers = stream(client, model=model)
    whole, streamed = (proxy.record(h["x-locum-request-id"]) for h in (headers, streamed_headers))
    assert answer.choices[0].message.content == text_of(chunks)
    assert whole.answers[0].usage == streamed.answers[0].usage
    assert whole.answers[0].cost_usd == streamed.answers[0].cost_usd > 0
    assert whole.counterfactual_usd == streamed.counterfactual_usd > 0
    assert Decimal(headers["x-locum-cost-usd"]) == whole.answers[0].cost_usd
    assert Decimal(headers["x-locum-saved-usd"]) == whole.saved_usd


def test_without_reported_usage_it_is_estimated(proxy: World, client: OpenAI) -> None:
    proxy.student.always(usage=None)
    _, headers = stream(client)
    usage = proxy.record(headers["x-locum-request-id"]).answers[0].usage
    assert usage.estimated
    assert usage.output_tokens == 3
    assert usage.input_tokens > 0


@pytest.mark.parametrize("model", ["locum/student", "locum/teacher"])
def test_what_the_client_asked_for_reaches_it(proxy: World, client: OpenAI, model: str) -> None:
    options: Any = {"stream_options": {"include_usage": True}, "logprobs": True}
    chunks, _ = stream(client, model=model, **options)
    assert chunks[-1].usage.prompt_tokens == 100
    assert chunks[1].choices[0].logprobs.content[0].logprob == -0.01
    answer, _ = ask(client, model=model, logprobs=True)
    assert len(answer.choices[0].logprobs.content) == 3


@pytest.mark.parametrize("model", ["locum/student", "locum/teacher"])
def test_unknown_fields_pass_both_ways(proxy: World, client: OpenAI, model: str) -> None:
    proxy.student.always(extra={"from_the_future": {"a": [1, 2]}})
    proxy.teacher.always(extra={"from_the_future": {"a": [1, 2]}})
    answer, _ = ask(client, model=model, extra_body={"unheard_of": {"b": 3}})
    assert answer.model_extra["from_the_future"] == {"a": [1, 2]}
    chunks, _ = stream(client, model=model, extra_body={"unheard_of": {"b": 3}})
    assert chunks[0].model_extra["from_the_future"] == {"a": [1, 2]}
    asked = (proxy.student if model == "locum/student" else proxy.teacher).seen
    assert [s.body["unheard_of"] for s in asked] == [{"b": 3}, {"b": 3}]


def test_the_teacher_passes_as_bytes_under_its_own_key(proxy: World, client: OpenAI) -> None:
    said = b'{"index":0,"message":{"role":"assistant","content":"h\\u0069"},"finish_reason":"stop"}'
    head = b'"id":"x","object":"chat.completion","created":1,"model":"big-2026"'
    body = b'{"choices": [ ' + said + b" ],\n " + head + b"}"
    proxy.teacher.always(raw=body)
    raw = client.chat.completions.with_raw_response.create(model="locum/teacher", messages=MESSAGES)
    assert raw.http_response.content == body
    assert raw.parse().model == "big-2026"
    assert raw.headers["content-length"] == str(len(body))
    sent = proxy.teacher.seen[0]
    assert sent.headers["authorization"] == "Bearer sk-teacher-secret"
    assert sent.body == {"model": "big", "messages": MESSAGES}


@pytest.mark.parametrize("streamed", [False, True])
def test_a_refusing_student_is_deferred_unseen(proxy: World, client: OpenAI, streamed: bool) -> None:
    proxy.student.always(text="" if streamed else "I'm sorry, but I can't help with that request at all.")
    proxy.teacher.always(text="Paris")
    if streamed:
        chunks, headers = stream(client)
        text = text_of(chunks)
    else:
        answer, headers = ask(client)
        text = answer.choices[0].message.content
    assert text == "Paris"
    assert (headers["x-locum-tier"], headers["x-locum-reason"]) == ("teacher", "deferral")
    record = proxy.record(headers["x-locum-request-id"])
    assert [(a.tier, a.kind) for a in record.answers] == [
        ("teacher", AnswerKind.SERVED),
        ("student", AnswerKind.DISCARDED),
    ]
    assert record.deferral in ("refusal", "empty")
    assert record.answers[1].cost_usd > 0
    assert record.saved_usd < 0


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("script", "cause"),
    [
        ({"status": 500}, "server_error"),
        ({"status": 429}, "rate_limited"),
        ({"raw": b"<html>"}, "server_error"),
    ],
)
def test_a_failing_student_falls_back_to_the_teacher(
    proxy: World, client: OpenAI, streamed: bool, script: dict[str, Any], cause: str
) -> None:
    proxy.student.always(**script)
    _, headers = stream(client) if streamed else ask(client)
    assert (headers["x-locum-tier"], headers["x-locum-reason"]) == ("teacher", "fallback")
    record = proxy.record(headers["x-locum-request-id"])
    assert record.fallback in (cause, "circuit_open", "unreachable")


def test_a_student_that_dies_before_the_commit_point_is_never_seen(proxy: World, client: OpenAI) -> None:
    proxy.student.always(die_after=2)
    proxy.teacher.always(text="Paris")
    chunks, headers = stream(client)
    assert text_of(chunks) == "Paris"
    assert headers["x-locum-reason"] == "fallback"


def test_a_student_whose_end_is_no_event_is_cut_short(proxy: World, client: OpenAI) -> None:
    chunk = b'{"id": "1", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "Hi"}}]}'
    raw = b"data: " + chunk + b"\n\n[DONE]\n\n"
    proxy.student.always(raw=raw, headers={"content-type": "text/event-stream"})
    chunks, headers = stream(client)
    assert text_of(chunks) == "hello there friend"
    assert headers["x-locum-tier"] == "teacher"


def test_a_student_that_finds_the_request_wrong_leaves_it_to_the_teacher(proxy: World, client: OpenAI) -> None:
    proxy.student.always(status=400, error={"message": "too long", "type": "invalid_request_error"})
    _, headers = ask(client)
    assert (headers["x-locum-tier"], headers["x-locum-reason"]) == ("teacher", "capability")


def test_the_teachers_own_refusal_reaches_the_client(proxy: World, client: OpenAI) -> None:
    error = {"message": "no such temperature", "type": "invalid_request_error", "param": "temperature", "code": "x"}
    proxy.teacher.always(status=400, error=error)
    with pytest.raises(openai.BadRequestError, match="no such temperature") as caught:
        ask(client, model="locum/teacher", temperature=99)
    assert caught.value.param == "temperature"
    assert len(proxy.teacher.seen) == 1, "a refusal is not retried"
    assert proxy.record(caught.value.response.headers["x-locum-request-id"]).status == 400


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("status", [500, 429, 401])
def test_the_student_stands_in_for_a_failing_teacher(proxy: World, client: OpenAI, streamed: bool, status: int) -> None:
    proxy.teacher.always(status=status)
    ask_for = stream if streamed else ask
    _, headers = ask_for(client, model="locum/teacher")
    assert (headers["x-locum-tier"], headers["x-locum-reason"]) == ("student", "fallback")


def test_a_brief_failure_of_the_teacher_is_retried(proxy: World, client: OpenAI) -> None:
    scripts = iter([Script(status=503), Script(text="Paris")])
    proxy.teacher.answer = lambda body: next(scripts)
    answer, headers = ask(client, model="locum/teacher")
    assert answer.choices[0].message.content == "Paris"
    assert headers["x-locum-tier"] == "teacher"
    assert len(proxy.teacher.seen) == 2


def test_a_capable_teacher_missing_is_said_not_papered_over(proxy: World, client: OpenAI) -> None:
    proxy.teacher.always(status=500)
    image: Any = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,x"}}]}]
    with pytest.raises(openai.InternalServerError, match="big answered 500") as caught:
        ask(client, messages=image)
    assert caught.value.status_code == 502
    assert not proxy.student.seen
    assert proxy.record(caught.value.response.headers["x-locum-request-id"]).status == 502


@pytest.mark.parametrize("model", ["locum/student", "locum/teacher"])
def test_a_stream_that_dies_ends_with_an_error_and_never_changes_tier(proxy: World, client: OpenAI, model: str) -> None:
    proxy.student.always(text="one two three four five six", die_after=5)
    proxy.teacher.always(text="one two three four five six", die_after=5)
    got: list[Any] = []
    raw = client.chat.completions.with_raw_response.create(model=model, messages=MESSAGES, stream=True)
    with pytest.raises(openai.APIError, match="broke off"):
        got.extend(iter(raw.parse()))  # extend keeps what came before the error
    tier = model.split("/")[1]
    assert raw.headers["x-locum-tier"] == tier
    record = proxy.record(raw.headers["x-locum-request-id"])
    assert (record.status, record.tier) == (502, tier)
    assert record.answers[0].message["content"] == "one two three four"
    assert record.answers[0].usage.estimated


@pytest.mark.parametrize("model", ["locum/student", "locum/teacher"])
def test_a_client_that_leaves_frees_the_upstream(proxy: World, client: OpenAI, model: str) -> None:
    upstream = proxy.student if model == "locum/student" else proxy.teacher
    upstream.always(text="one two three four five six", hang_after=5)
    raw = client.chat.completions.with_raw_response.create(model=model, messages=MESSAGES, stream=True)
    chunks = iter(raw.parse())
    assert next(chunks)
    raw.http_response.close()
    assert upstream.seen[0].left.wait(DEADLINE_SECONDS)
    record = proxy.record(raw.headers["x-locum-request-id"])
    assert record.status == 499
    assert record.answers[0].usage.estimated


def test_a_client_that_leaves_while_waiting_frees_the_upstream(proxy: World, client: OpenAI) -> None:
    proxy.student.always(hang=True)
    with pytest.raises(openai.APITimeoutError):
        ask(client, timeout=0.3)
    assert proxy.student.seen[0].left.wait(DEADLINE_SECONDS)
    until(lambda: any(r.status == 499 and not any(a.message for a in r.answers) for r in proxy.records()))


def test_a_hanging_student_times_out_to_the_teacher(tmp_path: Path) -> None:
    with (
        world(tmp_path, timeout_seconds=2) as proxy,
        OpenAI(base_url=f"{proxy.url}/v1", api_key="unused", max_retries=0) as client,
    ):
        until(lambda: ask(client)[1]["x-locum-tier"] == "student")
        proxy.student.always(hang=True)
        _, headers = ask(client)
        assert headers["x-locum-tier"] == "teacher"
        assert proxy.record(headers["x-locum-request-id"]).fallback == "timeout"


def test_tool_calls_pass_through_streams(proxy: World, client: OpenAI) -> None:
    def delta(**function: str) -> dict[str, Any]:
        named = {"id": "call_1", "type": "function"} if "name" in function else {}
        return {"tool_calls": [{"index": 0, **named, "function": function}]}

    parts = (delta(name="find", arguments=""), delta(arguments='{"q":'), delta(arguments='"x"}'))
    proxy.teacher.always(deltas=parts, finish_reason="tool_calls")
    tools: Any = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}]
    chunks, headers = stream(client, tools=tools)
    assert headers["x-locum-reason"] == "capability"
    calls = [c.choices[0].delta.tool_calls[0] for c in chunks if c.choices[0].delta.tool_calls]
    assert "".join(c.function.arguments for c in calls) == '{"q":"x"}'
    message = proxy.record(headers["x-locum-request-id"]).answers[0].message
    function = {"name": "find", "arguments": '{"q":"x"}'}
    assert message["tool_calls"] == [{"id": "call_1", "type": "function", "function": function}]


def test_json_schemas_reach_the_backend_and_broken_json_is_deferred(proxy: World, client: OpenAI) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    form: Any = {"type": "json_schema", "json_schema": {"name": "city", "schema": schema}}
    proxy.student.always(text='{"city": 7}')
    proxy.teacher.always(text='{"city": "Paris"}')
    answer, headers = ask(client, response_format=form)
    assert answer.choices[0].message.content == '{"city": "Paris"}'
    assert headers["x-locum-reason"] == "deferral"
    assert proxy.teacher.seen[0].body["response_format"] == form


def test_a_conversation_that_escalated_stays_with_the_teacher(proxy: World, client: OpenAI) -> None:
    named = {"x-locum-conversation": "follow-up"}
    proxy.student.always(text="")
    _, headers = ask(client, extra_headers=named)
    assert headers["x-locum-reason"] == "deferral"
    proxy.student.always()
    follow_up = [*MESSAGES, {"role": "assistant", "content": "Paris"}, {"role": "user", "content": "commit it"}]
    _, headers = ask(client, messages=follow_up, extra_headers=named)
    assert (headers["x-locum-tier"], headers["x-locum-reason"]) == ("teacher", "affinity")
    _, headers = ask(client, messages=follow_up, extra_headers={"x-locum-conversation": "another"})
    assert headers["x-locum-tier"] == "student"


def test_no_key_reaches_records(proxy: World, client: OpenAI) -> None:
    with OpenAI(base_url=f"{proxy.url}/v1", api_key="sk-client-secret", max_retries=0) as other:
        _, headers = ask(other, model="locum/teacher")
    text = repr(proxy.record(headers["x-locum-request-id"]))
    assert "secret" not in text
    assert "sk-client-secret" not in str(proxy.teacher.seen[-1].headers)


def test_audited_requests_are_answered_by_both(tmp_path: Path) -> None:
    audit = {"rate": 1, "warmup_rate": 1, "explore": 0, "usd_per_day": 5}
    rules = [{"when": {"user": "teacher"}, "send": "teacher"}]
    with (
        world(tmp_path, audit=audit, rules=rules) as found,
        OpenAI(base_url=f"{found.url}/v1", api_key="x") as client,
    ):
        for tier, other in (("student", "teacher"), ("teacher", "student")):
            ask_for = stream if tier == "student" else ask
            _, headers = ask_for(client, user=tier)
            record = until(
                lambda headers=headers: next(
                    (r for r in found.records() if r.request_id == headers["x-locum-request-id"] and r.audit), None
                )
            )
            assert record.audit.acceptable is True
            assert record.audit.answer.tier == other
            assert record.audit.answer.kind == "audited"
            assert record.audit.answer.cost_usd > 0
            assert record.decision.propensity == 1


def test_of_several_answers_each_is_judged(proxy: World, client: OpenAI) -> None:
    good = {"index": 0, "message": {"role": "assistant", "content": "fine"}, "finish_reason": "stop"}
    bad = {
        "index": 1,
        "message": {"role": "assistant", "content": "I'm sorry, but I can't help."},
        "finish_reason": "stop",
    }
    proxy.student.always(extra={"choices": [good, bad]})
    _, headers = ask(client, n=2, temperature=1)
    assert (headers["x-locum-tier"], headers["x-locum-reason"]) == ("teacher", "deferral")
    proxy.student.always(extra={"choices": [good, good | {"index": 1}]})
    answer, headers = ask(client, n=2, temperature=1)
    assert (headers["x-locum-tier"], len(answer.choices)) == ("student", 2)
    _, headers = stream(
        client, n=2, temperature=1
    )  # only the first of several streams could be judged before it leaves
    assert (headers["x-locum-tier"], headers["x-locum-reason"]) == ("teacher", "capability")


def test_the_student_never_stands_in_for_what_it_is_unfit_for(proxy: World, client: OpenAI) -> None:
    proxy.teacher.always(status=500)
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client, model="locum/teacher", tools=tools)
    assert caught.value.status_code == 502
    assert not proxy.student.seen
