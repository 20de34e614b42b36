"""Clients that speak chat, with a Claude teacher: what Claude is asked, and what comes back."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from router.backends.anthropic.answer import chat_of, is_whole, truly_ended, usage_of
from router.backends.anthropic.models import version_of
from router.backends.anthropic.request import messages_body
from router.backends.anthropic.stream import Chunks
from router.backends.anthropic.tools import closed
from router.errors import UpstreamError, UpstreamRefused
from router.wire.sse import LOST, UNREADABLE, chunks, ends, split
from tests.fakes import collected

NEW, OLD = "claude-opus-4-8", "claude-sonnet-4-5"
USER = {"role": "user", "content": "hi"}
MARK = {"cache_control": {"type": "ephemeral"}}
LS = {"type": "function", "function": {"name": "ls", "parameters": {"type": "object", "properties": {}}}}
PATCH = {"type": "custom", "custom": {"name": "patch", "format": {"type": "text"}}}
BY_BUDGET = {"type": "enabled", "budget_tokens": 5000}
TURN = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]


def asked(*messages: Any, model: str = OLD, **more: Any) -> dict[str, Any]:
    return messages_body({"model": "m", "messages": list(messages) or [USER], **more}, model)


def call(id: str = "call_1", arguments: Any = '{"a":1}') -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": "ls", "arguments": arguments}}


@pytest.mark.parametrize(
    ("model", "version"),
    [
        ("claude-opus-4-5-20251101", (4, 5)),
        ("claude-sonnet-4-20250514", (4, 0)),
        ("claude-3-7-sonnet-latest", (3, 7)),
        ("claude-haiku-5-5", (5, 5)),
        ("claude-mythos-preview", (99, 0)),
    ],
)
def test_a_name_tells_the_version(model: str, version: tuple[int, int]) -> None:
    assert version_of(model) == version


def test_the_least_request() -> None:
    assert asked() == {"model": OLD, "max_tokens": 32_000, "messages": TURN}


def test_marks_for_the_prompt_cache_are_kept_wherever_they_stand() -> None:
    found = asked(
        {"role": "system", "content": [{"type": "text", "text": "Be brief.", **MARK}]},
        {"role": "user", "content": [{"type": "text", "text": "hi", **MARK}]},
        {"role": "assistant", "content": None, "tool_calls": [call()]},
        {"role": "tool", "tool_call_id": "call_1", "content": "x", **MARK},
        tools=[LS | MARK],
    )
    assert found["system"] == [{"type": "text", "text": "Be brief.", **MARK}]
    assert found["tools"][0] | MARK == found["tools"][0]
    assert found["messages"][0]["content"][0] | MARK == found["messages"][0]["content"][0]
    assert found["messages"][2]["content"] == [
        {"type": "tool_result", "tool_use_id": "call_1", "content": [{"type": "text", "text": "x"}], **MARK}
    ]


def test_images_and_files_are_shown_and_none_is_fetched() -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/x.png"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,BBBB"}},
    ]
    image, linked, file = asked({"role": "user", "content": parts})["messages"][0]["content"]
    assert image == {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    assert linked["source"] == {"type": "url", "url": "http://127.0.0.1:9/x.png"}
    assert file["source"] == {"type": "base64", "media_type": "application/pdf", "data": "BBBB"}


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
        {"type": "image_url", "image_url": {"url": ["x"]}},
        {"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": ["text"]},
        "text",
    ],
)
def test_what_cannot_be_shown_is_refused_by_name(part: Any) -> None:
    with pytest.raises(UpstreamRefused) as caught:
        asked({"role": "user", "content": [part]})
    assert b"messages[0].content[0]" in caught.value.reply_body


def test_a_tool_loop_is_claudes_own() -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "sig"}
    found = asked(
        USER,
        {
            "role": "assistant",
            "content": "Looking.",
            "thinking_blocks": [{"index": 0, **thought}, {"type": "thinking", "thinking": "no", "signature": ""}],
            "tool_calls": [call(), call("functions.ls:0", "not json")],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "a"},
        {"role": "tool", "tool_call_id": "functions.ls:0", "content": ""},
        {"role": "user", "content": "and?"},
    )
    said, results = found["messages"][1:]
    assert said["content"][:3] == [
        thought,
        {"type": "text", "text": "Looking."},
        {"type": "tool_use", "id": "call_1", "name": "ls", "input": {"a": 1}},
    ]
    assert said["content"][3]["input"] == {"INVALID_JSON": "not json"}
    assert [b["type"] for b in results["content"]] == ["tool_result", "tool_result", "text"]
    assert results["content"][1]["tool_use_id"] == said["content"][3]["id"] != "functions.ls:0"
    assert found["tools"] == [{"name": "ls", "input_schema": {"type": "object", "properties": {}}}]
    assert found["tool_choice"] == {"type": "none"}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, {}),
        ({"tool_choice": "required"}, {"tool_choice": {"type": "any"}}),
        (
            {"tool_choice": {"type": "function", "function": {"name": "ls"}}},
            {"tool_choice": {"type": "tool", "name": "ls"}},
        ),
        ({"parallel_tool_calls": False}, {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}),
        ({"tool_choice": ["ls"]}, {}),
    ],
)
def test_tool_choice(given: dict[str, Any], wanted: dict[str, Any]) -> None:
    found = asked(tools=[LS], **given)
    assert {k: v for k, v in found.items() if k == "tool_choice"} == wanted


def test_only_allowed_tools_are_told() -> None:
    inner = {"mode": "required", "tools": [{"type": "custom", "custom": {"name": "patch"}}]}
    found = asked(tools=[LS, PATCH], tool_choice={"type": "allowed_tools", "allowed_tools": inner})
    assert [t["name"] for t in found["tools"]] == ["patch"]
    assert found["tool_choice"] == {"type": "any"}


@pytest.mark.parametrize("tool", [{"type": "web_search"}, {"type": "function"}, "ls", {"type": ["function"]}])
def test_other_tools_are_refused_by_name(tool: Any) -> None:
    with pytest.raises(UpstreamRefused) as caught:
        asked(tools=[LS, tool])
    assert b"tools[1]" in caught.value.reply_body


@pytest.mark.parametrize(
    ("model", "given", "wanted"),
    [
        (OLD, {"reasoning_effort": "low"}, {"thinking": {"type": "enabled", "budget_tokens": 2048}}),
        (OLD, {"reasoning_effort": "high", "max_tokens": 1000}, {}),
        (OLD, {"reasoning_effort": "none"}, {}),
        (OLD, {"reasoning_effort": "high", "tools": [LS], "tool_choice": "required"}, {}),
        (
            NEW,
            {"reasoning_effort": "xhigh"},
            {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "xhigh"}},
        ),
        (NEW, {"reasoning_effort": "xhigh", "thinking": {"type": "adaptive"}}, {"thinking": {"type": "adaptive"}}),
        (OLD, {"thinking": BY_BUDGET}, {"thinking": BY_BUDGET}),
    ],
)
def test_effort_is_thinking(model: str, given: dict[str, Any], wanted: dict[str, Any]) -> None:
    found = asked(model=model, **given)
    assert {k: found[k] for k in ("thinking", "output_config") if k in found} == wanted


@pytest.mark.parametrize(
    ("model", "given", "wanted"),
    [
        (OLD, {"temperature": 1.7, "top_p": 0.5, "top_k": 3}, {"temperature": 1, "top_k": 3}),
        (OLD, {"top_p": 0.5}, {"top_p": 0.5}),
        (OLD, {"temperature": 0.2, "reasoning_effort": "low"}, {}),
        (NEW, {"temperature": 0.2, "top_p": 0.5, "top_k": 3}, {}),
    ],
)
def test_sampling_is_what_the_model_takes(model: str, given: dict[str, Any], wanted: dict[str, Any]) -> None:
    found = asked(model=model, **given)
    assert {k: found[k] for k in ("temperature", "top_p", "top_k") if k in found} == wanted


def test_fields_that_anthropic_lacks_and_those_that_steer_stay_here() -> None:
    steering = {"api_base": "http://x", "extra_headers": {"a": "b"}, "mock_response": "x", "fallbacks": ["y"]}
    found = asked(**steering, seed=1, logit_bias={}, n=1, logprobs=True, user="u", stop="END", service_tier="default")
    assert found == {
        "model": OLD,
        "max_tokens": 32_000,
        "messages": TURN,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u"},
        "service_tier": "standard_only",
    }


def test_a_schema_is_closed_and_what_claude_refuses_is_said_in_words() -> None:
    schema = {
        "type": "object",
        "properties": {"age": {"type": "integer", "minimum": 0}, "on": {"type": "string", "format": ["odd"]}},
        "required": ["age"],
    }
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    config = asked(response_format=form, reasoning_effort="low", model=NEW)["output_config"]
    assert config["effort"] == "low"
    assert config["format"]["schema"] == {
        "type": "object",
        "properties": {
            "age": {"type": "integer", "description": '{"minimum":0}'},
            "on": {"type": "string", "description": '{"format":["odd"]}'},
        },
        "required": ["age"],
        "additionalProperties": False,
    }
    assert closed(True) is True
    assert "JSON object" in asked(response_format={"type": "json_object"})["system"][0]["text"]


def test_a_custom_tools_text_stands_in_an_object_there_and_back() -> None:
    made = {"id": "c1", "type": "custom", "custom": {"name": "patch", "input": "*** Begin"}}
    found = asked(USER, {"role": "assistant", "tool_calls": [made]}, tools=[PATCH])
    assert found["messages"][1]["content"][0]["input"] == {"input": "*** Begin"}
    assert found["tools"][0]["input_schema"]["required"] == ["input"]
    block = {"type": "tool_use", "id": "c1", "name": "patch", "input": {"input": "*** Begin"}}
    answer = chat_of({"content": [block], "stop_reason": "tool_use"}, ["patch"])
    assert answer["choices"][0]["message"]["tool_calls"] == [made]


@pytest.mark.parametrize("found", [[], None, {}, {"content": "text"}, {"error": {}}])
def test_what_is_no_message_is_an_error(found: Any) -> None:
    with pytest.raises(UpstreamError):
        chat_of(found)


def test_counts_that_are_none_are_told_as_none_and_a_compaction_is_paid_for() -> None:
    assert usage_of([]) is None
    odd = {
        "input_tokens": "many",
        "output_tokens": -1,
        "cache_creation": [],
        "output_tokens_details": 3,
        "iterations": 7,
    }
    found = usage_of(odd)
    assert found is not None
    assert (found["prompt_tokens"], found["completion_tokens"], found["total_tokens"]) == (None, None, None)
    apart = {"type": "compaction", "input_tokens": 100, "output_tokens": 10}
    counted = usage_of({"input_tokens": 1, "output_tokens": 2, "iterations": [apart, {"type": "message"}, 3]})
    assert counted is not None
    assert (counted["prompt_tokens"], counted["completion_tokens"]) == (101, 12)


@pytest.mark.parametrize(
    ("odd", "whole"),
    [
        ({}, True),
        ({"content": [{"type": "server_tool_use"}, {"type": "web_search_tool_result"}]}, True),
        ({"content": [5, {"type": "text", "text": "so"}]}, False),
        ({"content": [{"type": "text", "text": 7}]}, False),
        ({"content": [{"type": "picture", "data": "x"}]}, False),
        ({"role": "error"}, False),
        ({"stop_reason": "tool_use"}, False),
        ({"stop_reason": "tool_use", "content": [{"type": "tool_use", "id": "a", "name": "ls", "input": {}}]}, True),
        *(({"stop_reason": reason}, False) for reason in ("error", "tomorrow", None, {})),
    ],
)
def test_a_message_of_no_known_form_is_not_whole(odd: dict[str, Any], whole: bool) -> None:
    message = {"role": "assistant", "content": [{"type": "text", "text": "so"}], "stop_reason": "end_turn", **odd}
    assert is_whole(message) is whole


def event(kind: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps({"type": kind, **fields}))


STARTED = event("content_block_start", index=0, content_block={"type": "text", "text": ""})


@pytest.mark.parametrize(
    ("odd", "whole"),
    [
        (event("ping"), True),
        (event("content_block_delta", delta={"type": "citations_delta", "citation": {}}), True),
        (b'data: {"type": "content_block_de\n\n', False),
        (event("content_block_delta", delta={"type": "more_delta", "text": "so"}), False),
        (event("content_block_delta", delta=None), False),
        (event("content_block_start", content_block={"type": "picture", "text": 5}), False),
        (event("an_event_of_tomorrow"), False),
        *((event("message_delta", delta={"stop_reason": reason}), False) for reason in ("error", 5, {})),
    ],
)
def test_a_stream_with_what_cannot_be_read_is_not_whole(odd: bytes, whole: bool) -> None:
    raw = event("message_start", message={"role": "assistant"}) + event(
        "content_block_start", content_block={"type": "text", "text": "so"}
    )
    raw += odd + event("message_delta", delta={"stop_reason": "end_turn"}) + event("message_stop")
    out = b"".join(map(Chunks(native=False).take, split(raw)))
    assert (chunks(out)[1], ends(out)) == (whole, True)
    assert collected(out).finish_reason == "stop"


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (b'data: {"type": "content_block_de\n\n', UNREADABLE),
        (b"event: content_block_delta\ndata: <html>\n\n", UNREADABLE),
        (b"data: 5\n\n", UNREADABLE),
        (b"data: null\n\n", b""),
        (b": quiet\n\n", b""),
        (b"data: \n\n", b""),
        (b"what: is this\n\n", LOST),
    ],
)
def test_what_is_no_event_of_claudes_is_told_apart(event: bytes, told: bytes) -> None:
    assert Chunks(native=True).take(event) == told


@pytest.mark.parametrize(("calls", "told", "true"), [(False, "tool_use", "end_turn"), (True, "end_turn", "tool_use")])
def test_a_message_ends_for_its_tools_where_it_asks_for_some_and_only_then(
    *, calls: bool, told: str, true: str
) -> None:
    taken = Chunks(native=True)
    if calls:
        taken.take(event("content_block_start", content_block={"type": "tool_use", "id": "a", "name": "ls"}))
    out = taken.take(event("message_delta", delta={"stop_reason": told, "stop_sequence": None}, usage={"x": 1}))
    (chunk,), whole = chunks(out)
    own = chunk["locum_own_words"].encode()
    assert whole is calls
    assert own == event("message_delta", delta={"stop_reason": true, "stop_sequence": None}, usage={"x": 1})
    assert truly_ended({"stop_reason": told}, calls) == {"stop_reason": true}


def test_a_stream_adds_up_to_the_same_answer() -> None:
    def block(n: int, start: dict[str, Any], *deltas: dict[str, Any]) -> bytes:
        parts = [event("content_block_delta", index=n, delta=d) for d in deltas]
        opened, closed = (
            event("content_block_start", index=n, content_block=start),
            event("content_block_stop", index=n),
        )
        return b"".join([opened, *parts, closed])

    raw = event("message_start", message={"id": "msg_1", "model": "claude-x", "usage": {"input_tokens": 9}})
    raw += block(0, {"type": "thinking", "thinking": ""}, {"type": "thinking_delta", "thinking": "hm"},
                 {"type": "signature_delta", "signature": "sig"})  # fmt: skip
    raw += block(1, {"type": "tool_use", "id": "a", "name": "ls", "input": {}},
                 *({"type": "input_json_delta", "partial_json": part} for part in ('{"x"', ":1}")))  # fmt: skip
    raw += block(2, {"type": "tool_use", "id": "b", "name": "ls", "input": {"whole": 1}})
    raw += block(3, {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
                 {"type": "input_json_delta", "partial_json": "{}"})  # fmt: skip
    raw += event("message_delta", delta={"stop_reason": "tool_use"}, usage={"output_tokens": 5})
    raw += event("message_stop") + b"data: no json\n\n" + event("an_event_of_tomorrow", index=[])
    out = b"".join(map(Chunks(native=False).take, split(raw)))
    found = collected(out)
    assert found.message["reasoning_content"] == "hm"
    assert found.message["thinking_blocks"] == [{"index": 0, "type": "thinking", "thinking": "hm", "signature": "sig"}]
    assert [c["function"]["arguments"] for c in found.message["tool_calls"]] == ['{"x":1}', '{"whole":1}']
    assert found.finish_reason == "tool_calls"
    assert found.usage is not None
    assert (found.usage.usage.input_tokens, found.usage.usage.output_tokens) == (9, 5)
    assert out.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("kind", [["text_delta"], {"a": 1}, 5, None])
def test_an_event_whose_kind_is_no_text_is_one_that_nobody_knows(kind: Any) -> None:
    event = b"data: " + orjson.dumps({"type": "content_block_delta", "index": 0, "delta": {"type": kind}}) + b"\n\n"
    told = Chunks(native=False)
    told.take(STARTED)
    assert LOST in told.take(event)


@pytest.mark.parametrize(
    "odd",
    [
        event("content_block_delta", index=1, delta={"type": "text_delta", "text": "x"}),
        event("content_block_delta", delta={"type": "text_delta", "text": "x"}),
        event("content_block_delta", index=1, delta={"type": "delta_of_tomorrow"}),
        event("content_block_delta", index=0, delta={"type": "text_delta", "text": None}),
        event("content_block_delta", index=0, delta={"type": "thinking_delta"}),
        event("content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": None}),
        event("content_block_stop", index=1),
        event("content_block_start", index=1, content_block={"type": "text", "text": None}),
        event("content_block_start", index=1, content_block={"type": "thinking"}),
    ],
)
@pytest.mark.parametrize("native", [True, False])
def test_what_has_no_block_to_add_to_or_no_text_to_add_is_unreadable(*, odd: bytes, native: bool) -> None:
    told = Chunks(native=native)
    told.take(STARTED)
    assert told.take(odd) == UNREADABLE


@pytest.mark.parametrize("custom", [[], ["g"]])
def test_calls_whose_pieces_alternate_are_told_apart_by_their_index(custom: list[str]) -> None:
    def piece(n: int, text: str) -> bytes:
        return event("content_block_delta", index=n, delta={"type": "input_json_delta", "partial_json": text})

    raw = [
        event("content_block_start", index=n, content_block={"type": "tool_use", "id": name, "name": name, "input": {}})
        for n, name in enumerate("fg")
    ]
    raw += [piece(0, '{"input":'), piece(1, '{"input":'), piece(0, '"a"}'), piece(1, '"b"}')]
    raw += [event("content_block_stop", index=n) for n in (1, 0)]
    told = Chunks(native=False, custom=custom)
    first, second = collected(b"".join(map(told.take, raw))).message["tool_calls"]
    assert first["function"] == {"name": "f", "arguments": '{"input":"a"}'}
    assert second[second["type"]] == (
        {"name": "g", "input": "b"} if custom else {"name": "g", "arguments": '{"input":"b"}'}
    )


def test_the_usage_of_an_end_counts_before_the_last_event_comes() -> None:
    raw = event("message_start", message={"role": "assistant", "usage": {"input_tokens": 9, "output_tokens": 1}})
    raw += STARTED + event("content_block_delta", index=0, delta={"type": "text_delta", "text": "so"})
    raw += event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 400})
    found = collected(b"".join(map(Chunks(native=False).take, split(raw))))
    assert found.usage is not None and not found.outgrown
    assert (found.usage.usage.input_tokens, found.usage.usage.output_tokens) == (9, 400)


@pytest.mark.parametrize("name", [{"a": 1}, ["patch"], 5, None])
def test_a_tools_name_that_is_no_text_is_none_of_the_custom_ones(name: Any) -> None:
    events = (
        {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "t1", "name": name}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": '{"x":1}'}},
        {"type": "content_block_stop", "index": 0},
    )
    told = Chunks(native=False, custom=["patch"])
    out = b"".join(told.take(b"data: " + orjson.dumps(event) + b"\n\n") for event in events)
    (call,) = collected(out).message["tool_calls"]
    assert (call["type"], call["function"]["arguments"]) == ("function", '{"x":1}')
