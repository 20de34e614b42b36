"""The Responses API as its official client meets it, over the whole proxy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel

from router.api.responses import surface
from tests.fakes import World, until, world

WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "The weather in a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": True,
}
EVENTS = {get_args(c.model_fields["type"].annotation)[0]: c for c in get_args(get_args(ResponseStreamEvent)[0])}


class City(BaseModel):
    name: str
    people: int


pytestmark = pytest.mark.usefixtures("plain")


@pytest.fixture
def client(proxy: World) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{proxy.url}/v1", api_key="sk-mine", max_retries=0) as found:
        yield found


def raw(proxy: World, **body: Any) -> httpx.Response:
    headers = {"authorization": "Bearer sk-mine"}
    return httpx.post(f"{proxy.url}/v1/responses", headers=headers, json={"model": "gpt-4o", "input": "hi"} | body)


def events_of(proxy: World, **body: Any) -> list[dict[str, Any]]:
    """A stream's events, each as strict as the SDK's types are."""
    answer = raw(proxy, stream=True, **body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in answer.text.strip().split("\n\n"):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        EVENTS[event["type"]].model_validate(event)
        found.append(event)
    assert [e["sequence_number"] for e in found] == list(range(len(found)))
    return found


def asked(proxy: World, tier: str = "student") -> dict[str, Any]:
    return (proxy.student if tier == "student" else proxy.teacher).seen[-1].body


def calling(*arguments: str, text: str = "") -> dict[str, Any]:
    """A script's answer that calls ``weather`` once for each of the arguments, whole and streamed."""
    calls = [
        {"id": f"call_{n}", "type": "function", "function": {"name": "weather", "arguments": a}}
        for n, a in enumerate(arguments)
    ]
    deltas: list[dict[str, Any]] = [{"content": text}] if text else []
    for n, call in enumerate(calls):
        function: Any = call["function"]
        deltas.append({"tool_calls": [{"index": n, **call, "function": function | {"arguments": ""}}]})
        for piece in (function["arguments"][:4], function["arguments"][4:]):
            deltas.append({"tool_calls": [{"index": n, "function": {"arguments": piece}}]})
    return {
        "message": {"content": text or None, "tool_calls": calls},
        "deltas": tuple(deltas),
        "finish_reason": "tool_calls",
    }


def test_a_response_has_the_shape_that_the_client_knows(proxy: World, client: OpenAI) -> None:
    answer = client.responses.with_raw_response.create(model="gpt-4o", input="hi", metadata={"task": "greet"}, user="u")
    Response.model_validate(json.loads(answer.content))
    response = answer.parse()
    assert (response.output_text, response.status, response.model) == ("hello there friend", "completed", "tiny")
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (100, 10, 110)
    assert response.metadata == {"task": "greet"}
    assert answer.headers["x-locum-tier"] == "student"
    assert asked(proxy)["messages"] == [{"role": "user", "content": "hi"}]
    record = proxy.record(answer.headers["x-locum-request-id"])
    assert (record.task, record.user, record.status) == ("greet", "u", 200)


def test_a_stream_tells_every_step_in_order(proxy: World) -> None:
    events = events_of(proxy)
    assert [e["type"].removeprefix("response.") for e in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        *["output_text.delta"] * 3,
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert "".join(e["delta"] for e in events if e["type"].endswith("text.delta")) == "hello there friend"
    assert {e["output_index"] for e in events if "output_index" in e} == {0}
    assert {e["content_index"] for e in events if "content_index" in e} == {0}
    final = events[-1]["response"]
    assert len({e["item_id"] for e in events if "item_id" in e} | {final["output"][0]["id"]}) == 1
    assert {e["response"]["id"] for e in events if "response" in e} == {final["id"]}
    assert events[0]["response"]["model"] == final["model"] == "tiny"
    assert (events[0]["response"]["status"], events[0]["response"]["output"]) == ("in_progress", [])
    assert final["usage"]["output_tokens"] == 10
    assert events[-2]["item"] == final["output"][0]


def test_streamed_and_whole_answers_are_the_same_response(proxy: World) -> None:
    def bare(response: dict[str, Any]) -> dict[str, Any]:
        for part in (response, *response["output"]):
            del part["id"]
        return response | {"created_at": 0, "completed_at": 0}

    proxy.teacher.always(**calling('{"city": "Rome"}', '{"city": "Oslo"}', text="I look."))
    streamed = events_of(proxy, model="locum/teacher", tools=[WEATHER])[-1]["response"]
    whole = raw(proxy, model="locum/teacher", tools=[WEATHER]).json()
    assert [item["type"] for item in whole["output"]] == ["message", "function_call", "function_call"]
    assert bare(streamed) == bare(whole)


def test_the_clients_stream_helper_works(proxy: World, client: OpenAI) -> None:
    with client.responses.stream(model="gpt-4o", input="hi") as stream:
        deltas = [e.delta for e in stream if e.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(deltas) == final.output_text == "hello there friend"


async def test_the_async_client_works_in_every_way(proxy: World) -> None:
    async with AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="sk-mine", max_retries=0) as client:
        whole = await client.responses.create(model="gpt-4o", input="hi")
        found = [e async for e in await client.responses.create(model="gpt-4o", input="hi", stream=True)]
        async with client.responses.stream(model="gpt-4o", input="hi", previous_response_id=whole.id) as stream:
            final = await stream.get_final_response()
        proxy.teacher.always(text='{"name": "Oslo", "people": 700000}')
        parsed = await client.responses.parse(model="locum/teacher", input="Oslo?", text_format=City)
    assert found[-1].type == "response.completed"
    assert final.previous_response_id == whole.id
    assert parsed.output_parsed == City(name="Oslo", people=700_000)


def test_a_model_class_parses_the_answer(proxy: World, client: OpenAI) -> None:
    proxy.student.always(text='{"name": "Oslo", "people": 700000}')
    parsed = client.responses.parse(model="gpt-4o", input="Oslo?", text_format=City)
    assert parsed.output_parsed == City(name="Oslo", people=700_000)
    form = asked(proxy)["response_format"]
    assert (form["type"], form["json_schema"]["name"], form["json_schema"]["strict"]) == ("json_schema", "City", True)
    assert set(form["json_schema"]["schema"]["properties"]) == {"name", "people"}
    with client.responses.stream(model="gpt-4o", input="Oslo?", text_format=City) as stream:
        assert stream.get_final_response().output_parsed == parsed.output_parsed


@pytest.mark.parametrize("streamed", [False, True])
def test_tools_go_there_and_back_by_the_previous_response(proxy: World, client: OpenAI, streamed: bool) -> None:
    proxy.teacher.always(**calling('{"city": "Rome"}', '{"city": "Oslo"}', text="I look."))
    request: Any = {"model": "locum/teacher", "tools": [WEATHER]}
    if streamed:
        with client.responses.stream(input="Rome or Oslo?", **request) as stream:
            first: Any = stream.get_final_response()
    else:
        first = client.responses.create(input="Rome or Oslo?", **request)
    calls = [item for item in first.output if item.type == "function_call"]
    assert [(c.call_id, c.name, c.arguments) for c in calls] == [
        ("call_0", "weather", '{"city": "Rome"}'),
        ("call_1", "weather", '{"city": "Oslo"}'),
    ]
    function = asked(proxy, "teacher")["tools"][0]
    assert function == {"type": "function", "function": {k: v for k, v in WEATHER.items() if k != "type"}}

    proxy.teacher.always(text="Rome.")
    outputs: Any = [{"type": "function_call_output", "call_id": c.call_id, "output": "20"} for c in calls]
    second = client.responses.create(input=outputs, previous_response_id=first.id, **request)
    assert second.output_text == "Rome."
    user, assistant, *results = asked(proxy, "teacher")["messages"]
    assert user == {"role": "user", "content": "Rome or Oslo?"}
    assert (assistant["role"], assistant["content"]) == ("assistant", "I look.")
    assert [c["id"] for c in assistant["tool_calls"]] == ["call_0", "call_1"]
    assert results == [{"role": "tool", "tool_call_id": f"call_{n}", "content": "20"} for n in range(2)]


def test_streamed_calls_are_told_one_after_another(proxy: World) -> None:
    proxy.teacher.always(**calling('{"city": "Rome"}', '{"city": "Oslo"}'))
    events = events_of(proxy, model="locum/teacher", tools=[WEATHER])
    assert [(e["type"].removeprefix("response."), e["output_index"]) for e in events[2:-1]] == [
        (name, n)
        for n in range(2)
        for name in (
            "output_item.added",
            *["function_call_arguments.delta"] * 2,
            "function_call_arguments.done",
            "output_item.done",
        )
    ]
    assert [e["arguments"] for e in events if e["type"].endswith("arguments.done")] == [
        '{"city": "Rome"}',
        '{"city": "Oslo"}',
    ]


def test_a_conversation_stays_one_however_it_is_gone_on_with(proxy: World, client: OpenAI) -> None:
    def conversation(**body: Any) -> tuple[Any, str]:
        answer = client.responses.with_raw_response.create(model="gpt-4o", **body)
        return answer.parse(), proxy.record(answer.headers["x-locum-request-id"]).conversation_id

    first, opening = conversation(input="a story", instructions="be brief")
    _, by_id = conversation(input="more", instructions="be brief", previous_response_id=first.id)
    typed = [{"role": "user", "content": [{"type": "input_text", "text": "a story"}]}]
    items = [*typed, *(o.model_dump() for o in first.output), {"role": "user", "content": "more"}]
    _, by_hand = conversation(input=items, instructions="be brief")
    second, otherwise = conversation(input="more", instructions="sing", previous_response_id=first.id)
    _, without = conversation(input="more", previous_response_id=second.id)
    assert opening == by_id == by_hand == otherwise == without
    _, named = conversation(input="on", previous_response_id=second.id, metadata={"conversation_id": "mine"})
    assert named.partition("/")[2] == "mine"


def test_instructions_are_not_carried_over(proxy: World, client: OpenAI) -> None:
    first = client.responses.create(model="gpt-4o", input="one", instructions="be brief")
    assert asked(proxy)["messages"][0] == {"role": "system", "content": "be brief"}
    second = client.responses.create(model="gpt-4o", input="two", previous_response_id=first.id)
    client.responses.create(model="gpt-4o", input="three", previous_response_id=second.id, instructions="sing")
    assert [(m["role"], m["content"]) for m in asked(proxy)["messages"]] == [
        ("system", "sing"),
        ("user", "one"),
        ("assistant", "hello there friend"),
        ("user", "two"),
        ("assistant", "hello there friend"),
        ("user", "three"),
    ]


def test_a_kept_response_is_read_listed_and_deleted(proxy: World, client: OpenAI) -> None:
    made = client.responses.create(model="gpt-4o", input=[{"role": "user", "content": t} for t in ("one", "two", "3")])
    assert client.responses.retrieve(made.id) == made
    listed = client.responses.input_items.list(made.id, order="asc", limit=2)
    assert [item.content[0].text for item in listed] == ["one", "two", "3"]  # type: ignore[union-attr]
    newest = client.responses.input_items.list(made.id, limit=1)
    assert (newest.data[0].content[0].text, newest.has_more) == ("3", True)  # type: ignore[union-attr]
    deleted = httpx.delete(f"{proxy.url}/v1/responses/{made.id}", headers={"authorization": "Bearer sk-mine"})
    assert deleted.json() == {"id": made.id, "object": "response.deleted", "deleted": True}
    with pytest.raises(openai.NotFoundError, match=f"Response with id '{made.id}' not found"):
        client.responses.retrieve(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.delete(made.id)


def test_a_reference_stands_for_what_was_said(proxy: World, client: OpenAI) -> None:
    made = client.responses.create(model="gpt-4o", input="one")
    said = {"type": "item_reference", "id": made.output[0].id}
    items: Any = [{"role": "user", "content": "one"}, said, {"role": "user", "content": "two"}]
    client.responses.create(model="gpt-4o", input=items)
    assert [m["content"] for m in asked(proxy)["messages"]] == ["one", "hello there friend", "two"]
    with pytest.raises(openai.NotFoundError, match="Item with id 'msg_1' not found"):
        client.responses.create(model="gpt-4o", input=[{"type": "item_reference", "id": "msg_1"}])


def test_references_are_no_longer_than_what_a_request_may_say(client: OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    made = client.responses.create(model="gpt-4o", input="one")
    said: Any = {"type": "item_reference", "id": made.output[0].id}
    with pytest.raises(openai.BadRequestError, match="referred to twice"):
        client.responses.create(model="gpt-4o", input=[said, said])
    monkeypatch.setattr(surface, "MOST_BYTES", 100)
    with pytest.raises(openai.BadRequestError, match="longer than a request may be"):
        client.responses.create(model="gpt-4o", input=[said])


def test_what_is_not_stored_cannot_be_gone_on_with(proxy: World, client: OpenAI) -> None:
    def going_on(previous: str) -> openai.BadRequestError:
        with pytest.raises(openai.BadRequestError) as caught:
            client.responses.create(model="gpt-4o", input="two", previous_response_id=previous)
        return caught.value

    unkept = client.responses.create(model="gpt-4o", input="one", store=False)
    assert unkept.model_dump()["store"] is False
    assert "store" not in asked(proxy)
    first = client.responses.create(model="gpt-4o", input="one")
    second = client.responses.create(model="gpt-4o", input="two", previous_response_id=first.id)
    client.responses.delete(first.id)
    for previous in (unkept.id, "resp_nothing", second.id):
        error = going_on(previous)
        assert (error.code, error.param) == ("previous_response_not_found", "previous_response_id")


def test_a_response_is_its_makers_alone(proxy: World, client: OpenAI) -> None:
    made = client.responses.create(model="gpt-4o", input="one")
    other = client.with_options(api_key="sk-theirs")
    with pytest.raises(openai.NotFoundError):
        other.responses.retrieve(made.id)
    with pytest.raises(openai.NotFoundError):
        other.responses.delete(made.id)
    with pytest.raises(openai.BadRequestError):
        other.responses.create(model="gpt-4o", input="two", previous_response_id=made.id)
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="sk-none").responses.retrieve(made.id)
    assert client.responses.retrieve(made.id).id == made.id


def test_a_policy_that_keeps_no_text_keeps_no_response(tmp_path: Path) -> None:
    with world(tmp_path, log={"text": False}) as found:
        client = OpenAI(base_url=f"{found.url}/v1", api_key="k", max_retries=0)
        made = client.responses.create(model="gpt-4o", input="hi there", store=True)
        assert made.model_dump()["store"] is False
        with pytest.raises(openai.BadRequestError, match="keeps no text"):
            client.responses.create(model="gpt-4o", input="two", previous_response_id=made.id)
        with pytest.raises(openai.NotFoundError, match="keeps no text"):
            client.responses.create(model="gpt-4o", input=[{"type": "item_reference", "id": made.output[0].id or ""}])
        assert all(b"hi there" not in file.read_bytes() for file in found.home.glob("responses.db*"))


@pytest.mark.parametrize(("reason", "why"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_an_answer_that_was_cut_is_incomplete(proxy: World, client: OpenAI, reason: str, why: str) -> None:
    proxy.teacher.always(finish_reason=reason)
    made = client.responses.create(model="locum/teacher", input="hi", max_output_tokens=16)
    assert asked(proxy, "teacher")["max_completion_tokens"] == 16
    assert (made.status, made.output[0].status) == ("incomplete", "incomplete")  # type: ignore[union-attr]
    assert made.incomplete_details is not None
    assert made.incomplete_details.reason == why
    last = events_of(proxy, model="locum/teacher")[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": why}


def test_a_failure_before_the_start_is_an_error_with_its_status(proxy: World, client: OpenAI) -> None:
    refusal = {"message": "too hot", "type": "invalid_request_error", "param": "temperature", "code": None}
    proxy.teacher.always(status=400, error=refusal)
    for streamed in (False, True):
        with pytest.raises(openai.BadRequestError, match="too hot") as caught:
            client.responses.create(model="locum/teacher", input="hi", temperature=9, stream=streamed)  # type: ignore[call-overload]
        assert caught.value.param == "temperature"
    proxy.student.always(status=500)
    proxy.teacher.always(status=500)
    with pytest.raises(openai.InternalServerError) as failed:
        client.responses.create(model="gpt-4o", input="hi")
    assert failed.value.code == "upstream_error"
    with pytest.raises(openai.NotFoundError, match="locum/default"):
        client.responses.create(model="gpt-9", input="hi")


def test_a_stream_that_breaks_off_says_so_and_is_not_kept(proxy: World, client: OpenAI) -> None:
    proxy.teacher.always(die_after=3)
    with pytest.raises(openai.APIError) as caught:
        list(client.responses.create(model="locum/teacher", input="hi", stream=True))
    assert caught.value.code == "upstream_error"
    *_, error, last = events_of(proxy, model="locum/teacher")
    assert error["type"] == "error"
    assert error["message"] == error["error"]["message"]
    assert (last["type"], last["response"]["status"]) == ("response.failed", "failed")
    assert last["response"]["error"] == {"code": "server_error", "message": error["message"]}
    assert last["response"]["output"][0]["content"][0]["text"] == "hello there"
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(last["response"]["id"])


def test_a_client_that_leaves_is_noticed(proxy: World, client: OpenAI) -> None:
    proxy.teacher.always(hang_after=2)
    stream = client.responses.create(model="locum/teacher", input="hi", stream=True)
    next(e for e in stream if e.type == "response.output_text.delta")
    stream.close()
    until(proxy.teacher.seen[-1].left.is_set)
    request_id = stream.response.headers["x-locum-request-id"]
    assert proxy.record(request_id).status == 499


def test_token_probabilities_come_where_they_are_asked_for(proxy: World, client: OpenAI) -> None:
    include: Any = ["message.output_text.logprobs"]
    made: Any = client.responses.create(model="gpt-4o", input="hi", include=include, top_logprobs=2)
    assert (asked(proxy)["logprobs"], asked(proxy)["top_logprobs"]) == (True, 2)
    assert next((p.token, p.bytes) for p in made.output[0].content[0].logprobs) == ("hello", [*b"hello"])
    events = events_of(proxy, include=include)
    assert [p["token"] for e in events if e["type"].endswith("text.delta") for p in e["logprobs"]] == [
        "hello",
        " there",
        " friend",
    ]
    assert len(events[-1]["response"]["output"][0]["content"][0]["logprobs"]) == 3


def test_a_refusal_and_thoughts_have_their_own_items(proxy: World, client: OpenAI) -> None:
    proxy.teacher.always(
        message={"content": None, "refusal": "I can't.", "reasoning_content": "Hm, no."},
        deltas=({"reasoning_content": "Hm,"}, {"reasoning_content": " no."}, {"refusal": "I"}, {"refusal": " can't."}),
    )
    made: Any = client.responses.create(model="locum/teacher", input="hi")
    thoughts, said = made.output
    assert (thoughts.type, thoughts.content[0].text) == ("reasoning", "Hm, no.")
    assert said.content[0].refusal == "I can't."
    names = [e["type"].removeprefix("response.") for e in events_of(proxy, model="locum/teacher")]
    one = ["output_item.added", "content_part.added"]
    assert names[2:-1] == [
        *[*one, *["reasoning_text.delta"] * 2, "reasoning_text.done", "content_part.done", "output_item.done"],
        *[*one, *["refusal.delta"] * 2, "refusal.done", "content_part.done", "output_item.done"],
    ]


async def test_the_next_turn_may_come_at_once(proxy: World) -> None:
    """Whoever has a response's last byte finds it."""
    async with AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="sk-mine", max_retries=0) as client:

        async def talk() -> None:
            previous = None
            for _ in range(5):
                async for event in await client.responses.create(
                    model="gpt-4o", input="on", previous_response_id=previous, stream=True
                ):
                    if event.type == "response.completed":
                        previous = event.response.id
            assert previous is not None

        await asyncio.gather(*(talk() for _ in range(8)))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": None}, "input"),
        ({"input": 5}, "input"),
        ({"input": []}, "input"),
        ({"input": ["hi"]}, "input[0]"),
        ({"input": [{"type": "compaction", "id": "cm_1"}]}, "input[0].type"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"tools": [{"type": "file_search"}]}, "tools[0].type"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice"),
        ({"stream": "yes"}, "stream"),
        ({"model": None}, "model"),
    ],
)
def test_what_cannot_be_done_is_told_in_openais_shape(proxy: World, body: dict[str, Any], param: str) -> None:
    answer = raw(proxy, **body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


@pytest.mark.parametrize("streamed", [False, True])
def test_what_no_model_was_shown_is_named_in_a_header(proxy: World, streamed: bool) -> None:
    items = [{"type": "web_search_call", "id": "ws_1"}, {"role": "user", "content": "hi"}]
    asked = {"model": "locum/teacher", "input": items, "tools": [{"type": "web_search"}], "stream": streamed}
    found = httpx.post(f"{proxy.url}/v1/responses", json=asked, headers={"authorization": "Bearer sk-mine"})
    assert found.status_code == 200
    assert found.headers["x-locum-dropped"] == "tools.web_search, input.web_search_call"
    assert "tools" not in proxy.teacher.seen[-1].body
