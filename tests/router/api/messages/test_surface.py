"""Anthropic's own client against the proxy: whole and streamed, tools, errors, counts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import pytest
from anthropic import Anthropic, AsyncAnthropic, beta_tool
from pydantic import BaseModel

from tests.fakes import Script, World, until, world

HI: list[Any] = [{"role": "user", "content": "hi"}]
ASK: dict[str, Any] = {"model": "claude-sonnet", "max_tokens": 50, "messages": HI}
TOOL: Any = {"name": "look", "description": "Looks", "input_schema": {"type": "object", "properties": {"at": {}}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at": "sky"}'}}
CALL_PIECES: tuple[Any, ...] = (
    {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": ""}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": '{"at":'}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": ' "sky"}'}}]},
)
CALLING: dict[str, Any] = {
    "text": "",
    "message": {"content": None, "tool_calls": [CALL]},
    "deltas": CALL_PIECES,
    "finish_reason": "tool_calls",
    "logprob": None,
}
TIERS = ("locum/student", "locum/teacher")


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    with world(folder, client_keys=("sk-mine",), aliases=["claude-sonnet"]) as found:
        until(lambda: httpx.get(f"{found.url}/health/ready").json()["policies"][0]["student"]["ready"])
        yield found


@pytest.fixture
def proxy(started: World) -> World:
    for upstream in (started.student, started.teacher):
        upstream.always()
        upstream.seen.clear()
    return started


@pytest.fixture
def client(proxy: World) -> Iterator[Anthropic]:
    with Anthropic(base_url=proxy.url, api_key="sk-mine", max_retries=0) as found:
        yield found


def post(proxy: World, body: Any, path: str = "/v1/messages", **headers: str) -> httpx.Response:
    return httpx.post(proxy.url + path, json=body, headers={"x-api-key": "sk-mine"} | headers)


def text_of(message: Any) -> str:
    return "".join(b.text for b in message.content if b.type == "text")


def test_a_claude_client_needs_only_another_base_url(proxy: World, client: Anthropic) -> None:
    raw = client.messages.with_raw_response.create(**ASK, system="be brief", extra_headers={"anthropic-beta": "x-1"})
    message = raw.parse()
    assert (text_of(message), message.model, message.stop_reason) == ("hello there friend", "tiny", "end_turn")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (100, 10)
    assert raw.headers["x-locum-tier"] == "student"
    assert message._request_id == raw.headers["request-id"] == raw.headers["x-locum-request-id"]
    assert message.id == f"msg_{raw.headers['request-id'].removeprefix('req_')}"
    sent = proxy.student.seen[0].body
    assert sent["messages"] == [{"role": "system", "content": "be brief"}, *HI]
    assert proxy.record(raw.headers["request-id"]).answers[0].message["content"] == "hello there friend"


@pytest.mark.parametrize("tier", TIERS)
def test_a_stream_adds_up_to_the_whole_answer(client: Anthropic, tier: str) -> None:
    ask = ASK | {"model": tier}
    with client.messages.stream(**ask) as stream:
        pieces = list(stream.text_stream)
        message = stream.get_final_message()
    assert len(pieces) == 3
    whole = client.messages.create(**ask)
    assert (text_of(message), message.stop_reason, message.model) == ("".join(pieces), "end_turn", whole.model)
    assert (message.content[0].type, message.usage.to_dict()) == ("text", whole.usage.to_dict())


def test_raw_streams_and_the_beta_path_work_too(client: Anthropic) -> None:
    kinds = [event.type for event in client.messages.create(**ASK, stream=True)]
    assert (kinds[0], kinds[-2], kinds[-1]) == ("message_start", "message_delta", "message_stop")
    message = client.beta.messages.create(
        **ASK, betas=["context-management-2025-06-27"], context_management={"edits": []}
    )
    assert message.content[0].type == "text"


async def test_the_async_client_works(proxy: World) -> None:
    async with AsyncAnthropic(base_url=proxy.url, auth_token="sk-mine", max_retries=0) as client:
        assert text_of(await client.messages.create(**ASK)) == "hello there friend"
        async with client.messages.stream(**ASK) as stream:
            assert await stream.get_final_text() == "hello there friend"
        assert (await client.messages.count_tokens(model="claude-sonnet", messages=HI)).input_tokens > 0


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_is_called_and_its_result_answered(proxy: World, client: Anthropic, tier: str, streamed: bool) -> None:
    upstream = proxy.student if "student" in tier else proxy.teacher
    upstream.answer = lambda body: Script(text="blue") if body["messages"][-1]["role"] == "tool" else Script(**CALLING)

    def ask(messages: list[Any]) -> Any:
        given: dict[str, Any] = {"model": tier, "max_tokens": 50, "messages": messages, "tools": [TOOL]}
        if not streamed:
            return client.messages.create(**given)
        with client.messages.stream(**given) as stream:
            return stream.get_final_message()

    first = ask(HI)
    assert first.stop_reason == "tool_use"
    [call] = first.content
    assert (call.type, call.name, call.input) == ("tool_use", "look", {"at": "sky"})
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "it is blue"}
    turns = [*HI, {"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    second = ask(turns)
    assert (text_of(second), second.stop_reason) == ("blue", "end_turn")
    calling, answering = upstream.seen[-1].body["messages"][1:]
    assert calling["tool_calls"][0]["function"] == {"name": "look", "arguments": '{"at":"sky"}'}
    assert answering == {"role": "tool", "tool_call_id": call.id, "content": "it is blue"}
    assert calling["tool_calls"][0]["id"] == call.id


def test_an_agents_loop_runs_to_its_end(proxy: World, client: Anthropic) -> None:
    """The client's own tool runner: it calls the function, sends the result, and goes on until there is text.
    It asks for a thread first, and does without where the error says that there is none."""

    @beta_tool
    def look(at: str) -> str:
        """Looks at something.

        Args:
            at: What to look at.
        """
        return f"{at} is blue"

    def answer(body: dict[str, Any]) -> Script:
        last = body["messages"][-1]
        return Script(text=last["content"]) if last["role"] == "tool" else Script(**CALLING)

    proxy.student.answer = proxy.teacher.answer = answer
    final = client.beta.messages.tool_runner(**ASK, tools=[look]).until_done()
    assert text_of(final) == "sky is blue"


def test_images_reach_the_model(proxy: World, client: Anthropic) -> None:
    image: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
    turn: Any = {"role": "user", "content": [image, {"type": "text", "text": "what?"}]}
    client.messages.create(model="locum/teacher", max_tokens=50, messages=[turn])
    [sent] = [m["content"] for m in proxy.teacher.seen[0].body["messages"]]
    assert sent[0] == {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}


def test_thinking_is_streamed_where_it_was_asked_for(proxy: World, client: Anthropic) -> None:
    proxy.teacher.always(deltas=({"reasoning_content": "hm"}, {"content": "hi"}))
    ask = ASK | {"model": "locum/teacher", "max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 1024}}
    with client.messages.stream(**ask) as stream:
        thinking, text = stream.get_final_message().content
    assert (thinking.type, thinking.thinking, text.type) == ("thinking", "hm", "text")
    assert proxy.teacher.seen[0].body["reasoning_effort"] == "low"


def test_answers_are_parsed_by_their_schema(proxy: World, client: Anthropic) -> None:
    class City(BaseModel):
        name: str

    proxy.student.always(text='{"name": "Bern"}')
    assert client.messages.parse(**ASK, output_format=City).parsed_output == City(name="Bern")
    form = proxy.student.seen[0].body["response_format"]["json_schema"]
    assert form["strict"] is True
    assert form["schema"]["required"] == ["name"]


def test_a_wrong_key_is_an_authentication_error(proxy: World) -> None:
    with (
        Anthropic(base_url=proxy.url, api_key="sk-else", max_retries=0) as client,
        pytest.raises(anthropic.AuthenticationError) as caught,
    ):
        client.messages.create(**ASK)
    assert caught.value.type == "authentication_error"
    assert caught.value.request_id
    assert "sk-" not in str(caught.value)


@pytest.mark.parametrize("ask", ["create", "count_tokens"])
def test_an_unknown_model_names_what_there_is(client: Anthropic, ask: str) -> None:
    given = {"model": "claude-9", "messages": HI} | ({"max_tokens": 5} if ask == "create" else {})
    with pytest.raises(anthropic.NotFoundError, match="there is locum/default, claude-sonnet") as caught:
        getattr(client.messages, ask)(**given)
    assert caught.value.type == "not_found_error"
    assert caught.value.request_id


def test_what_only_anthropic_has_is_refused_by_name(client: Anthropic) -> None:
    search: Any = {"type": "web_search_20250305", "name": "web_search"}
    with pytest.raises(anthropic.BadRequestError, match=r"tools\.0\.type: 'web_search_20250305'") as caught:
        client.messages.create(**ASK, tools=[search])
    assert caught.value.type == "invalid_request_error"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[" * 100_000, b'{"model": "claude-sonnet"}'])
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_nonsense_is_told_in_anthropics_shape(proxy: World, path: str, content: bytes) -> None:
    answer = httpx.post(proxy.url + path, content=content, headers={"x-api-key": "sk-mine"})
    assert answer.status_code == 400
    body = answer.json()
    assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")
    assert body["request_id"] == answer.headers["request-id"]


def test_too_large_a_request_is_refused(proxy: World) -> None:
    answer = httpx.post(f"{proxy.url}/v1/messages", content=b"x" * (65 * 2**20), headers={"x-api-key": "sk-mine"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (413, "request_too_large")


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("status", "raised"),
    [
        (400, (anthropic.BadRequestError, "invalid_request_error")),
        (422, (anthropic.UnprocessableEntityError, "invalid_request_error")),
        (429, (anthropic.RateLimitError, "rate_limit_error")),
        (500, (anthropic.InternalServerError, "api_error")),
    ],
)
def test_a_teachers_refusal_is_the_clients_own_exception(
    proxy: World, client: Anthropic, status: int, raised: tuple[type[anthropic.APIStatusError], str], streamed: bool
) -> None:
    """The student fails too, so that nobody stands in."""
    proxy.student.always(status=500)
    proxy.teacher.always(status=status, error={"message": "no, and here is why", "type": "x", "code": None})
    ask = ASK | {"model": "default"}
    try:
        with pytest.raises(raised[0]) as caught:
            client.messages.create(**ask, stream=streamed)
    finally:
        _close_circuits(proxy)
    assert (caught.value.type, bool(caught.value.request_id)) == (raised[1], True)
    if status in (400, 422):
        assert caught.value.api_message == "no, and here is why"


def _close_circuits(proxy: World) -> None:
    """Lets both tiers answer again, until they are believed to."""
    for upstream in (proxy.student, proxy.teacher):
        upstream.always()
    for tier in TIERS:
        until(lambda t=tier: post(proxy, ASK | {"model": t}).status_code == 200)


@pytest.mark.parametrize("tier", TIERS)
def test_a_broken_stream_is_an_error_after_what_came(proxy: World, client: Anthropic, tier: str) -> None:
    for upstream in (proxy.student, proxy.teacher):
        upstream.always(text="one two three four five six", die_after=5)
    came = ""
    with (
        pytest.raises(anthropic.APIStatusError) as caught,
        client.messages.stream(**ASK | {"model": tier}) as stream,
    ):
        for piece in stream.text_stream:
            came += piece
    assert came == "one two three four"
    assert caught.value.type in ("api_error", "overloaded_error")
    _close_circuits(proxy)


def test_keep_alives_of_the_model_server_reach_the_client_as_pings(proxy: World) -> None:
    chunk = b'data: {"model":"big","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}\n\n'
    raw = b": keep-alive\n\n" + chunk + b": keep-alive\n\ndata: [DONE]\n\n"
    proxy.teacher.always(raw=raw, headers={"content-type": "text/event-stream"})
    answer = post(proxy, ASK | {"model": "locum/teacher", "stream": True})
    assert answer.text.count("event: ping\n") >= 2
    assert answer.text.count("event: message_stop\n") == 1


def test_the_client_that_leaves_is_noticed(proxy: World) -> None:
    proxy.teacher.always(hang_after=2)
    with httpx.stream(
        "POST",
        f"{proxy.url}/v1/messages",
        json=ASK | {"model": "locum/teacher", "stream": True},
        headers={"x-api-key": "sk-mine"},
    ) as answer:
        next(answer.iter_bytes())
        left: threading.Event = proxy.teacher.seen[0].left
    assert left.wait(10)


def test_a_rule_of_the_policy_sees_the_metadata_and_the_record_the_user(proxy: World, client: Anthropic) -> None:
    metadata: Any = {"user_id": "u-1", "task": "legal"}
    raw = client.messages.with_raw_response.create(**ASK, metadata=metadata)
    record = proxy.record(raw.headers["request-id"])
    assert (record.user, record.task) == ("u-1", "legal")


def test_tokens_are_counted_as_routing_counts_them(proxy: World, client: Anthropic) -> None:
    def count(**more: Any) -> int:
        return client.messages.count_tokens(model="claude-sonnet", messages=HI, **more).input_tokens

    assert count() == 4
    assert count(system="x" * 400) == count() + 104
    assert count(tools=[TOOL]) > count()
    assert proxy.student.seen == proxy.teacher.seen == []
    assert post(proxy, {}, "/v1/messages/count_tokens", **{"x-api-key": "sk-else"}).status_code == 401
