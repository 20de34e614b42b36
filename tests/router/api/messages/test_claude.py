"""A Claude client whose teacher is Claude too: nothing of what either says is lost between them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import orjson
import pytest
from anthropic import Anthropic
from openai import OpenAI

from router.backends.anthropic import base_url
from tests.fakes import FakeUpstream, Script, World, served, world

CLAUDE = "claude-sonnet-4-5"
KEY = "sk-ant-secret"
EVENTS = {"content-type": "text/event-stream"}
MARK = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
USAGE = {
    "input_tokens": 4,
    "cache_creation_input_tokens": 3000,
    "cache_read_input_tokens": 20000,
    "cache_creation": {"ephemeral_5m_input_tokens": 1000, "ephemeral_1h_input_tokens": 2000},
    "output_tokens": 6,
    "service_tier": "standard",
}
BLOCKS: list[dict[str, Any]] = [
    {"type": "thinking", "thinking": "hm, sky", "signature": "sig-1"},
    {"type": "redacted_thinking", "data": "c2VjcmV0"},
    {"type": "text", "text": "Let me look."},
    {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": "sky"}},
    {"type": "thinking", "thinking": "and sea", "signature": "sig-2"},
    {"type": "text", "text": "Blue."},
]


def message(content: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    blocks = [{"type": "text", "text": "ok"}] if content is None else content
    said = {"id": "msg_1", "type": "message", "role": "assistant", "model": f"{CLAUDE}-20250929", "content": blocks}
    return said | {"stop_reason": "end_turn", "stop_sequence": None, "usage": USAGE} | more


def event(kind: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps({"type": kind, **fields}))


def events_of(found: dict[str, Any]) -> bytes:
    """The message as Anthropic streams it."""
    out = event("message_start", message=found | {"content": [], "stop_reason": None}) + event("ping")
    for n, block in enumerate(found["content"]):
        empty = {"text": "", "thinking": "", "signature": "", "input": {}}
        out += event("content_block_start", index=n, content_block={k: empty.get(k, v) for k, v in block.items()})
        if block["type"] == "tool_use":
            deltas = [{"type": "input_json_delta", "partial_json": orjson.dumps(block["input"]).decode()}]
        else:
            kinds = {"text": "text_delta", "thinking": "thinking_delta", "signature": "signature_delta"}
            deltas = [{"type": kind, name: block[name]} for name, kind in kinds.items() if name in block]
        for delta in deltas:
            out += event("content_block_delta", index=n, delta=delta)
        out += event("content_block_stop", index=n)
    stop = {"stop_reason": found["stop_reason"], "stop_sequence": found["stop_sequence"]}
    return out + event("message_delta", delta=stop, usage={"output_tokens": 6}) + event("message_stop")


class Claude(FakeUpstream):
    """Anthropic's API, as far as a test scripts it: ``says`` one message, whole or streamed."""

    def says(self, found: dict[str, Any]) -> None:
        def answer(body: dict[str, Any]) -> Script:
            if body.get("stream"):
                return Script(raw=events_of(found), headers={"content-type": "text/event-stream"})
            return Script(raw=orjson.dumps(found))

        self.answer = answer

    def fails(self, status: int, kind: str, words: str) -> None:
        error = {"type": "error", "error": {"type": kind, "message": words}, "request_id": "req_theirs"}
        self.always(status=status, raw=orjson.dumps(error))

    @property
    def asked(self) -> dict[str, Any]:
        return self.seen[-1].body


@pytest.fixture(scope="module")
def claude() -> Iterator[Claude]:
    found = Claude(CLAUDE)
    with served(found) as found.url:
        yield found


@pytest.fixture(scope="module")
def proxy(claude: Claude, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    teacher = {"model": f"anthropic/{CLAUDE}", "usd_per_million": {"input": 3, "output": 15}}
    env = {"ANTHROPIC_API_BASE": claude.url, "ANTHROPIC_API_KEY": KEY}
    with world(tmp_path_factory.mktemp("proxy"), teacher=teacher, env=env) as found:
        yield found


@pytest.fixture
def client(proxy: World, claude: Claude) -> Iterator[Anthropic]:
    claude.says(message())
    with Anthropic(base_url=proxy.url, api_key="any", max_retries=0) as found:
        yield found


def ask(client: Anthropic, *, streamed: bool, **more: Any) -> Any:
    given: dict[str, Any] = {"model": "locum/teacher", "max_tokens": 40000, **more}
    given.setdefault("messages", [{"role": "user", "content": "what?"}])
    with client.messages.stream(**given) as stream:
        if streamed:
            return stream.get_final_message()
    return client.with_options(timeout=60).messages.create(**given)


@pytest.mark.parametrize(
    "asked",
    [
        {"thinking": {"type": "enabled", "budget_tokens": 31999, "display": "omitted"}},
        {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "max"}},
        {"thinking": {"type": "disabled"}},
        {"top_k": 5, "temperature": 0.3, "stop_sequences": ["END"], "service_tier": "standard_only"},
        {"tool_choice": {"type": "tool", "name": "ls"}, "tools": [{"name": "ls", "input_schema": {}, **MARK}]},
        {"system": [{"type": "text", "text": "Be brief.", **MARK}], "metadata": {"user_id": "u" * 150}},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi", **MARK}]}], "cache_control": {}},
        {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}},
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_what_a_client_asks_claude_is_asked(
    proxy: World, claude: Claude, asked: dict[str, Any], streamed: bool
) -> None:
    claude.says(message())
    body = {"model": "locum/teacher", "max_tokens": 99, "messages": [{"role": "user", "content": "hi"}], **asked}
    sent = httpx.post(
        f"{proxy.url}/v1/messages",
        json=body | ({"stream": True} if streamed else {}),
        headers={"anthropic-beta": "context-management-2025-06-27, interleaved-thinking-2025-05-14"},
    )
    assert sent.status_code == 200, sent.text
    assert claude.asked == body | {"model": CLAUDE} | ({"stream": True} if streamed else {})
    headers = claude.seen[-1].headers
    assert (headers["x-api-key"], headers["anthropic-version"]) == (KEY, "2023-06-01")
    assert headers["anthropic-beta"] == "context-management-2025-06-27, interleaved-thinking-2025-05-14"
    assert "authorization" not in headers


def test_no_field_chooses_a_host_a_price_or_an_account(proxy: World, claude: Claude) -> None:
    claude.says(message())
    body = {"model": "locum/teacher", "max_tokens": 99, "messages": [{"role": "user", "content": "hi"}]}
    steering = {
        "api_base": "http://127.0.0.1:9",
        "base_url": "http://127.0.0.1:9",
        "extra_headers": {"x": "y"},
        "fallbacks": [{"model": "claude-opus-5"}],
        "inference_geo": "us",
        "metadata": {"user_id": "u", "task": "mine"},
        "mock_response": "no",
        "speed": "fast",
        "workspace_id": "w",
    }
    found = httpx.post(f"{proxy.url}/v1/messages", json=body | steering, headers={"anthropic-beta": "a\tb"})
    assert found.json()["content"][0]["text"] == "ok"
    assert claude.asked == body | {"model": CLAUDE, "metadata": {"user_id": "u"}}
    assert "anthropic-beta" not in claude.seen[-1].headers


def test_no_field_or_header_asks_for_a_dearer_class(proxy: World, claude: Claude) -> None:
    claude.says(message())
    body = {"model": "locum/teacher", "max_tokens": 99, "messages": [{"role": "user", "content": "hi"}]}
    for given, left in (
        (
            "context-1m-2025-08-07, interleaved-thinking-2025-05-14,Fast-Mode-2026-02-01",
            "interleaved-thinking-2025-05-14",
        ),
        ("context-1m-2025-08-07", None),
    ):
        asked = body | {"service_tier": "auto"}
        found = httpx.post(f"{proxy.url}/v1/messages", json=asked, headers={"anthropic-beta": given})
        assert found.status_code == 200
        assert claude.asked == body | {"model": CLAUDE}
        assert claude.seen[-1].headers.get("anthropic-beta") == left


@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_comes_back_byte_for_byte(proxy: World, claude: Claude, streamed: bool) -> None:
    told = message(BLOCKS, stop_reason="tool_use", container={"id": "c"}, a_field_of_tomorrow=2**70)
    raw = orjson.dumps(message(BLOCKS, stop_reason="tool_use", container={"id": "c"}))
    raw = raw.replace(b'"container"', b'"a_field_of_tomorrow": %d, "container"' % told["a_field_of_tomorrow"])
    if streamed:
        raw = events_of(message(BLOCKS, stop_reason="tool_use"))
    claude.always(raw=raw, headers={"content-type": "text/event-stream"} if streamed else {})
    body = {"model": "locum/teacher", "max_tokens": 99, "messages": [{"role": "user", "content": "hi"}]}
    found = httpx.post(f"{proxy.url}/v1/messages", json=body | {"stream": streamed})
    assert found.content == raw
    record = proxy.record(found.headers["x-locum-request-id"])
    said = record.answers[0]
    assert said.message["content"] == "Let me look.Blue."
    thoughts = [{k: v for k, v in thought.items() if k != "index"} for thought in said.message["thinking_blocks"]]
    assert thoughts == [b for b in BLOCKS if "thinking" in b["type"]]
    assert said.message["tool_calls"][0]["id"] == "toolu_1"
    assert orjson.loads(said.message["tool_calls"][0]["function"]["arguments"]) == {"at": "sky"}
    assert (said.finish_reason, said.model) == ("tool_calls", f"{CLAUDE}-20250929")
    usage = said.usage
    assert (usage.input_tokens, usage.cached_input_tokens, usage.output_tokens) == (23004, 20000, 6)
    assert (usage.cache_written_tokens, usage.cache_written_1h_tokens) == (3000, 2000)
    assert "locum_own_words" not in str(record)


@pytest.mark.parametrize("streamed", [False, True])
def test_the_sdk_gets_all_of_it(client: Anthropic, claude: Claude, streamed: bool) -> None:
    claude.says(message(BLOCKS, stop_reason="tool_use"))
    found = ask(client, streamed=streamed)
    assert [b.to_dict(exclude_none=True) for b in found.content] == BLOCKS
    assert (found.usage.cache_creation_input_tokens, found.usage.cache_read_input_tokens) == (3000, 20000)
    assert found.usage.cache_creation.ephemeral_1h_input_tokens == 2000


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("max_tokens", "length"),
        ("stop_sequence", "stop"),
        ("refusal", "content_filter"),
        ("pause_turn", "length"),
        ("model_context_window_exceeded", "length"),
    ],
)
def test_stop_reasons_are_claudes(
    *, proxy: World, client: Anthropic, claude: Claude, reason: str, finish: str, streamed: bool
) -> None:
    claude.says(message(stop_reason=reason, stop_sequence="END" if reason == "stop_sequence" else None))
    found = ask(client, streamed=streamed)
    assert (found.stop_reason, found.stop_sequence) == (reason, "END" if reason == "stop_sequence" else None)


def failing(tmp_path: Path, claude: Claude, body: dict[str, Any]) -> httpx.Response:
    """What a client gets of a proxy of its own, which no failure before it has made wary."""
    teacher = {"model": f"anthropic/{CLAUDE}", "usd_per_million": {"input": 3, "output": 15}}
    env = {"ANTHROPIC_BASE_URL": f"{claude.url}/v1/", "ANTHROPIC_API_KEY": KEY}
    asked = {"max_tokens": 99, "messages": [{"role": "user", "content": "hi"}], "model": "locum/teacher", **body}
    with world(tmp_path, teacher=teacher, env=env, student=unready(claude)) as found:
        return httpx.post(f"{found.url}/v1/messages", json=asked)


def unready(claude: Claude) -> dict[str, Any]:
    price = {"input": 0.02, "output": 0.06}
    return {"model": "gone", "url": "http://127.0.0.1:9/v1", "usd_per_million": price}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"),
        (404, "not_found_error", "model: claude-x"),
        (413, "request_too_large", "Request exceeds the maximum size"),
        (500, "api_error", "Internal server error"),
        (529, "overloaded_error", "Overloaded"),
    ],
)
def test_a_failure_keeps_its_type_and_words(
    *, tmp_path: Path, claude: Claude, status: int, kind: str, words: str, streamed: bool
) -> None:
    claude.fails(status, kind, words)
    found = failing(tmp_path, claude, {"stream": streamed})
    assert (found.status_code, found.json()["error"]) == (status, {"type": kind, "message": words})


def test_words_about_the_proxys_own_account_stay_here(tmp_path: Path, claude: Claude) -> None:
    claude.fails(401, "authentication_error", f"invalid x-api-key {KEY}")
    found = failing(tmp_path, claude, {})
    assert found.status_code == 502
    assert KEY not in found.text


@pytest.mark.parametrize(
    ("kind", "status"), [("overloaded_error", 529), ("invalid_request_error", 400), ("api_error", 500)]
)
def test_an_error_before_the_first_word_of_a_stream_is_an_error(
    tmp_path: Path, claude: Claude, kind: str, status: int
) -> None:
    start = events_of(message([])).partition(b"event: message_delta")[0]
    raw = start + event("error", error={"type": kind, "message": "Oh no"})
    claude.always(raw=raw, headers={"content-type": "text/event-stream"})
    found = failing(tmp_path, claude, {"stream": True})
    assert (found.status_code, found.json()["error"]) == (status, {"type": kind, "message": "Oh no"})


@pytest.mark.parametrize("at", [b"event: message_start", b"event: content_block_stop", b"event: message_delta"])
def test_an_event_that_cannot_be_read_is_a_failure(tmp_path: Path, claude: Claude, at: bytes) -> None:
    before, found, after = events_of(message()).partition(at)
    claude.always(raw=before + b'data: {"type": "content_bl\n\n' + found + after, headers=EVENTS)
    assert failing(tmp_path, claude, {"stream": True}).status_code == 502


def test_what_the_end_tells_is_booked_where_the_last_event_never_comes(proxy: World, claude: Claude) -> None:
    whole = events_of(message([{"type": "text", "text": "word " * 30}]))
    raw = whole.partition(b"event: message_stop")[0].replace(b'"output_tokens":6', b'"output_tokens":400')
    claude.always(raw=raw, headers=EVENTS)
    body = {"model": "locum/teacher", "max_tokens": 500, "messages": [{"role": "user", "content": "hi"}]}
    sent = httpx.post(f"{proxy.url}/v1/messages", json=body | {"stream": True})
    (answer,) = proxy.record(sent.headers["x-locum-request-id"]).answers
    assert (answer.usage.output_tokens, answer.usage.estimated) == (400, False)


@pytest.mark.parametrize("text", [None, 5])
def test_a_piece_that_is_no_text_is_a_failure(tmp_path: Path, claude: Claude, text: Any) -> None:
    start, at, rest = events_of(message()).partition(b"event: content_block_stop")
    odd = event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})
    claude.always(raw=start + odd + at + rest, headers=EVENTS)
    assert failing(tmp_path, claude, {"stream": True}).status_code == 502


def test_an_error_after_it_is_the_streams_last_event(client: Anthropic, claude: Claude) -> None:
    start = events_of(message()).partition(b"event: content_block_stop")[0]
    raw = start + event("error", error={"type": "overloaded_error", "message": "Overloaded"})
    claude.always(raw=raw, headers={"content-type": "text/event-stream"})
    with pytest.raises(anthropic.APIStatusError, match="Overloaded") as caught:
        ask(client, streamed=True)
    assert caught.value.body["error"]["type"] == "overloaded_error"


def test_what_other_models_wrote_is_taken_out(proxy: World, claude: Claude) -> None:
    claude.says(message())
    turns: list[dict[str, Any]] = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "a student's", "signature": ""}]},
        {"role": "user", "content": "so?"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "kimi's", "signature": ""},
                {"type": "tool_use", "id": "functions.ls:0", "name": "ls", "input": {}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "functions.ls:0", "content": "x"}]},
    ]
    body = {"model": "locum/teacher", "max_tokens": 4000, "messages": turns}
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 2000}}
    assert httpx.post(f"{proxy.url}/v1/messages", json=body | thinking).status_code == 200
    assert "thinking" not in claude.asked  # inside a tool loop that began without, Claude refuses to begin
    hello, so, called, result = claude.asked["messages"]
    assert (hello, so) == (turns[0], turns[2])
    (call,) = called["content"]
    assert call["id"] == result["content"][0]["tool_use_id"]
    assert call["id"].isidentifier()


def test_ids_that_another_model_counts_from_0_are_each_there_once(proxy: World, claude: Claude) -> None:
    claude.says(message())

    def loop(*ids: str) -> list[dict[str, Any]]:
        calls = [{"type": "tool_use", "id": id, "name": "ls", "input": {}} for id in ids]
        results = [{"type": "tool_result", "tool_use_id": id, "content": str(n)} for n, id in enumerate(ids)]
        return [{"role": "assistant", "content": calls}, {"role": "user", "content": results}]

    turns = [{"role": "user", "content": "hi"}, *loop("call_0"), *loop("call_0", "call_0"), *loop("call_0")]
    body = {"model": "locum/teacher", "max_tokens": 4000, "messages": turns}
    assert httpx.post(f"{proxy.url}/v1/messages", json=body).status_code == 200
    contents = [turn["content"] for turn in claude.asked["messages"][1:]]
    called = [[b["id"] for b in blocks] for blocks in contents[::2]]
    assert called == [[b["tool_use_id"] for b in blocks] for blocks in contents[1::2]]
    assert len({id for ids in called for id in ids}) == 4
    assert claude.asked["messages"][:3] == turns[:3]


def test_a_request_as_deep_as_may_be_is_translated(proxy: World, claude: Claude) -> None:
    claude.says(message())
    schema: dict[str, Any] = {"type": "string", "pattern": "x"}
    for _ in range(60):
        schema = {"type": "object", "properties": {"a": schema}}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    body = {"model": "locum/teacher", "messages": [{"role": "user", "content": "hi"}], "response_format": form}
    found = httpx.post(f"{proxy.url}/v1/chat/completions", json=body)
    assert found.status_code == 200, found.text
    assert claude.asked["output_config"]["format"]["schema"]["additionalProperties"] is False


def test_where_anthropic_is(tmp_path: Path) -> None:
    assert base_url({}) == "https://api.anthropic.com"
    for given in ("http://a", "http://a/", "http://a/v1", "http://a/v1/messages"):
        assert base_url({"ANTHROPIC_API_BASE": given, "ANTHROPIC_BASE_URL": "http://b"}) == "http://a"


def test_a_client_that_speaks_chat_gets_all_that_chat_can_say(proxy: World, claude: Claude) -> None:
    """Two thoughts, a call between them, and the way back into the tool loop by a client that drops the thoughts."""
    tools: Any = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    asked: Any = [{"role": "user", "content": "what?"}]
    claude.says(message(BLOCKS, stop_reason="tool_use"))
    named = {"x-locum-conversation": "sky"}  # it asks the same twice, and by such call ids none is told from another
    with OpenAI(base_url=f"{proxy.url}/v1", api_key="any", max_retries=0, default_headers=named) as client:
        whole = client.chat.completions.create(model="locum/teacher", messages=asked, tools=tools)
        with client.chat.completions.stream(model="locum/teacher", messages=asked, tools=tools) as stream:
            streamed = stream.get_final_completion()
        for found in (whole, streamed):
            said: Any = found.choices[0].message
            assert said.content == "Let me look.Blue."
            assert "hm, sky" in said.reasoning_content
            assert [t["type"] for t in said.thinking_blocks] == ["thinking", "redacted_thinking", "thinking"]
            assert found.choices[0].finish_reason == "tool_calls"
            assert found.model == f"{CLAUDE}-20250929"
            assert "locum_own_words" not in found.to_json()
        assert whole.usage is not None and whole.usage.prompt_tokens == 23004
        function = {"name": "look", "arguments": '{"at":"sky"}'}
        calling = {"role": "assistant", "tool_calls": [{"id": "toolu_1", "type": "function", "function": function}]}
        result = {"role": "tool", "tool_call_id": "toolu_1", "content": "blue"}
        given: Any = [*asked, calling, result]
        client.chat.completions.create(model="locum/teacher", messages=given, tools=tools, reasoning_effort="low")
    back = claude.asked["messages"][1]["content"]
    assert [b["type"] for b in back] == ["thinking", "redacted_thinking", "thinking", "tool_use"]
    assert back[0] == BLOCKS[0]
    assert claude.asked["thinking"]["type"] == "enabled"


@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_that_is_promised_and_never_asked_for_is_waited_for_by_nobody(
    client: Anthropic, claude: Claude, *, streamed: bool
) -> None:
    claude.says(message(stop_reason="tool_use"))
    assert ask(client, streamed=streamed).stop_reason == "end_turn"
    claude.says(message(BLOCKS, stop_reason="end_turn"))
    assert ask(client, streamed=streamed).stop_reason == "tool_use"


@pytest.mark.parametrize(
    "raw",
    [
        b"[]",
        b"{}",
        b'{"type": "message", "content": null}',
        b"<html>",
        b'{"content": [5, {"type": ["text"]}, {"type": "tool_use", "input": 3}], "usage": [], "stop_reason": 5}',
    ],
)
def test_what_claude_would_never_say_is_no_fault_of_ours(proxy: World, claude: Claude, raw: bytes) -> None:
    claude.always(raw=raw)
    body = {"model": "locum/teacher", "max_tokens": 99, "messages": [{"role": "user", "content": "hi"}]}
    assert httpx.post(f"{proxy.url}/v1/messages", json=body).status_code in (200, 502)
    for event in (b"data: []", b'data: {"type": 5}', b"data: " + raw, b'data: {"type":"content_block_start"}'):
        claude.always(raw=event + b"\n\n", headers={"content-type": "text/event-stream"})
        found = httpx.post(f"{proxy.url}/v1/messages", json=body | {"stream": True})
        assert found.status_code in (200, 502)
