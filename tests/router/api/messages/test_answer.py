"""Chat answers as Messages, whole and streamed, as servers of all kinds give them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

from router.api.messages.answer import MessageContext, message_of
from router.api.messages.errors import from_openai
from router.api.messages.stream import PING, MessageStream
from router.wire.sse import encode

USAGE = {"prompt_tokens": 100, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 60}}
CHAT = {"model": "claude", "messages": [{"role": "user", "content": "hi" * 20}], "stop": ["END"]}
ASKED = MessageContext("req_1", CHAT)
THINKING = MessageContext("req_1", CHAT, thinking=True)
FIELDS = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
    "input_json_delta": "json",
}
EVENTS: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


def call(arguments: Any = '{"at":"sky"}', **more: Any) -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": arguments}} | more


def whole(question: MessageContext = ASKED, finish: Any = "stop", usage: Any = USAGE, **message: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": None} | message, "finish_reason": finish}
    found = message_of({"model": "big", "choices": [choice], "usage": usage}, question)
    Message.model_validate(found)
    return found


def chunk(finish: Any = None, usage: Any = None, **delta: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"model": "big", "choices": [choice]} | ({"usage": usage} if usage else {})


def fragment(index: int, arguments: str, **more: Any) -> dict[str, Any]:
    name = {"name": "look"} if more else {}
    return {"index": index, "function": {"arguments": arguments} | name} | more


def streamed(*chunks: Any, question: MessageContext = ASKED, done: bytes = b"data: [DONE]\n\n") -> list[dict[str, Any]]:
    """The events for these chunks, without pings, each checked against Anthropic's own types."""
    stream = MessageStream(question)
    raw = b"".join([*(stream.take(c if isinstance(c, bytes) else encode(c)) for c in chunks), stream.take(done)])
    assert stream.finish() == b""
    found = []
    for event in raw.replace(PING, b"").split(b"\n\n")[:-1]:
        kind, data = event.split(b"\n")
        body = orjson.loads(data.removeprefix(b"data: "))
        assert kind == b"event: " + body["type"].encode()
        if body["type"] != "error":
            EVENTS.validate_python(body)
        found.append(body)
    return found


def blocks(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The blocks as a client puts them together; one is open at a time, each is closed."""
    found: list[dict[str, Any]] = []
    is_open = False
    for event in events:
        if event["type"] == "content_block_start":
            assert not is_open and event["index"] == len(found)
            found.append(dict(event["content_block"]) | {"json": ""})
            is_open = True
        elif event["type"] == "content_block_delta":
            assert is_open and event["index"] == len(found) - 1
            [piece] = (v for k, v in event["delta"].items() if k != "type")
            found[-1][FIELDS[event["delta"]["type"]]] += piece
        elif event["type"] == "content_block_stop":
            assert is_open and event["index"] == len(found) - 1
            is_open = False
    assert not is_open
    return found


def test_text_becomes_a_message_under_its_true_model() -> None:
    assert whole(content="hello") == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "big",
        "content": [{"type": "text", "text": "hello"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 40,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 60,
            "output_tokens": 10,
        },
    }


@pytest.mark.parametrize(
    ("finish", "message", "reason"),
    [
        ("stop", {"content": "x"}, "end_turn"),
        (None, {"content": "x"}, "end_turn"),
        ("length", {"content": "x"}, "max_tokens"),
        ("content_filter", {"content": "x"}, "refusal"),
        ("stop", {"refusal": "I won't"}, "refusal"),
        ("tool_calls", {"tool_calls": [call()]}, "tool_use"),
        ("stop", {"tool_calls": [call()]}, "tool_use"),
        ("length", {"tool_calls": [call()]}, "max_tokens"),
        ("eos", {"content": "x"}, "end_turn"),
    ],
)
def test_why_it_ended_is_told_in_anthropics_words(finish: Any, message: dict[str, Any], reason: str) -> None:
    assert whole(finish=finish, **message)["stop_reason"] == reason
    calls = [c | {"index": 0} for c in message.get("tool_calls", [])]
    delta = message | ({"tool_calls": calls} if calls else {})
    events = streamed(chunk(**delta), *([chunk(finish)] if finish else []))
    assert events[-2]["delta"]["stop_reason"] == reason


@pytest.mark.parametrize(
    ("field", "met", "found"),
    [
        ("stop_reason", "END", "END"),
        ("matched_stop", "END", "END"),
        ("stop_reason", 2, None),
        ("stop_reason", "?", None),
    ],
)
def test_the_stop_sequence_is_told_where_the_server_tells_it(field: str, met: Any, found: str | None) -> None:
    ended = {"index": 0, "message": {"content": "x"}, "delta": {"content": "x"}, "finish_reason": "stop", field: met}
    reason = "stop_sequence" if found else "end_turn"
    message = message_of({"choices": [ended]}, ASKED)
    delta = streamed({"choices": [ended]})[-2]["delta"]
    for got in (message, delta):
        assert (got["stop_reason"], got["stop_sequence"]) == (reason, found)


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ('{"at":"sky"}', {"at": "sky"}),
        ({"at": "sky"}, {"at": "sky"}),
        ("", {}),
        (None, {}),
        ('{"at":', {"INVALID_JSON": '{"at":'}),
        ("[1]", {"INVALID_JSON": "[1]"}),
    ],
)
def test_arguments_are_always_an_object(arguments: Any, given: dict[str, Any]) -> None:
    found = whole(tool_calls=[call(arguments)])["content"]
    assert found == [{"type": "tool_use", "id": "call_1", "name": "look", "input": given}]


def test_a_call_without_an_id_gets_one() -> None:
    content = whole(tool_calls=[call(id=None), call(id=""), "odd", {"function": None}])["content"]
    assert [c["id"] for c in content] == ["toolu_1_0", "toolu_1_1"]
    assert blocks(streamed(chunk(tool_calls=[fragment(0, "{}", id=None)])))[0]["id"] == "toolu_1_0"


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thinking_is_shown_only_to_those_who_asked(field: str) -> None:
    said = {field: "hm", "content": "hi"}
    thought = {"type": "thinking", "thinking": "hm", "signature": ""}
    assert whole(THINKING, **said)["content"] == [thought, {"type": "text", "text": "hi"}]
    assert whole(**said)["content"] == [{"type": "text", "text": "hi"}]
    chunks = [chunk(**{field: "h"}), chunk(**{field: "m"}), chunk(content="hi"), chunk("stop")]
    assert [b["type"] for b in blocks(streamed(*chunks))] == ["text"]
    thinking, text = blocks(streamed(*chunks, question=THINKING))
    assert (thinking["thinking"], text["text"]) == ("hm", "hi")


def test_signed_thinking_keeps_its_signature() -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "s1"}
    hidden = {"type": "redacted_thinking", "data": "xyz"}
    said = {"reasoning_content": "hm", "thinking_blocks": [thought, hidden], "content": "hi"}
    assert whole(THINKING, **said)["content"] == [thought, hidden, {"type": "text", "text": "hi"}]
    assert whole(**said)["content"] == [{"type": "text", "text": "hi"}]
    events = streamed(
        chunk(reasoning_content="hm", thinking_blocks=[{"type": "thinking", "thinking": "hm", "signature": None}]),
        chunk(reasoning_content="", thinking_blocks=[{"type": "thinking", "thinking": "", "signature": "s1"}]),
        chunk(thinking_blocks=[hidden]),
        chunk(reasoning_content="again"),
        chunk(content="hi"),
        question=THINKING,
    )
    first, second, third, _ = blocks(events)
    assert (first["thinking"], first["signature"]) == ("hm", "s1")
    assert (second["type"], second["data"]) == ("redacted_thinking", "xyz")
    assert (third["thinking"], third["signature"]) == ("again", "")


@pytest.mark.parametrize("said", [{"content": "abcdefgh"}, {"content": [{"type": "text", "text": "abcdefgh"}, 5]}])
def test_without_usage_it_is_estimated(said: dict[str, Any]) -> None:
    found = whole(usage=None, **said)["usage"]
    assert found["input_tokens"] == 14
    assert found["output_tokens"] > 0
    events = streamed(chunk(**said), chunk("stop"))
    assert events[-2]["usage"] == found | {"output_tokens": 2}


def test_an_empty_answer_is_a_message_without_content() -> None:
    assert whole(content="")["content"] == []
    kinds = [e["type"] for e in streamed()]
    assert kinds == ["message_start", "message_delta", "message_stop"]


def test_a_stream_becomes_anthropics_events_in_their_order() -> None:
    events = streamed(
        chunk(role="assistant", content=""),
        chunk(content="Let "),
        chunk(content="me."),
        chunk(tool_calls=[fragment(0, "", id="call_1")]),
        chunk(tool_calls=[fragment(0, '{"at":')]),
        chunk(tool_calls=[fragment(0, '"sky"}')]),
        chunk(tool_calls=[fragment(1, "{}", id="call_2")]),
        chunk("tool_calls"),
        {"choices": [], "usage": USAGE},
    )
    kinds = [e["type"].removeprefix("content_block_").removeprefix("message_") for e in events]
    text, first, second = (
        ["start", "delta", "delta", "stop"],
        ["start", "delta", "delta", "stop"],
        ["start", "delta", "stop"],
    )
    assert kinds == ["start", *text, *first, *second, "delta", "stop"]
    assert events[0]["message"]["model"] == "big"
    assert [b.get("text") or b["json"] for b in blocks(events)] == ["Let me.", '{"at":"sky"}', "{}"]
    assert [b.get("id") for b in blocks(events)] == [None, "call_1", "call_2"]
    assert events[-2]["delta"]["stop_reason"] == "tool_use"
    assert events[-2]["usage"]["cache_read_input_tokens"] == 60


def test_mixed_pieces_of_several_calls_are_put_in_order() -> None:
    events = streamed(
        chunk(tool_calls=[fragment(0, '{"a"', id="a"), fragment(1, '{"b"', id="b")]),
        chunk(tool_calls=[fragment(1, ":1}"), fragment(0, ":0}")]),
        chunk(content="after"),
        chunk("tool_calls"),
    )
    assert [b["json"] or b["text"] for b in blocks(events)] == ['{"a":0}', '{"b":1}', "after"]


def test_calls_that_are_not_numbered_are_told_apart_by_their_ids() -> None:
    calls = [call('{"n":1}', id="a"), call('{"n":2}', id="b")]
    assert [b["id"] for b in blocks(streamed(chunk(tool_calls=calls), chunk("stop")))] == ["a", "b"]


def test_what_trails_a_finished_call_is_left_out() -> None:
    events = streamed(
        chunk(tool_calls=[fragment(0, "{}", id="a")]),
        chunk(tool_calls=[fragment(1, "{}", id="b")]),
        chunk(tool_calls=[fragment(0, " ")]),
    )
    assert [b["json"] for b in blocks(events)] == ["{}", "{}"]


def test_only_the_first_choice_is_told() -> None:
    other = {"choices": [{"index": 1, "delta": {"content": "other"}}]}
    assert [b["text"] for b in blocks(streamed(chunk(content="hi"), other))] == ["hi"]


def test_keep_alives_are_pings() -> None:
    assert MessageStream(ASKED).take(b": keep-alive\n\n") == PING


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "gone", "type": "upstream_error", "code": "upstream_error"}, "api_error"),
        ({"message": "slow", "type": "upstream_error", "code": "upstream_timeout"}, "timeout_error"),
        ({"message": "busy", "code": "circuit_open"}, "overloaded_error"),
        ({"message": "much", "type": "rate_limit_error", "code": 429}, "rate_limit_error"),
        ("gone", "api_error"),
    ],
)
def test_a_broken_stream_ends_with_an_error_and_nothing_after_it(error: Any, kind: str) -> None:
    events = streamed(chunk(content="hi"), {"error": error}, chunk(content="more"))
    message = error if isinstance(error, str) else error["message"]
    assert events[-1] == {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}


@pytest.mark.parametrize(
    "odd", [b"data: {\n\n", b"event: x\ndata: 5\n\n", {"choices": "x"}, {"choices": [5, {"delta": 5}]}]
)
def test_malformed_chunks_are_passed_over(odd: Any) -> None:
    assert [b["text"] for b in blocks(streamed(chunk(content="a"), odd, chunk(content="b")))] == ["ab"]


@pytest.mark.parametrize(
    ("status", "content", "kind", "message"),
    [
        (400, b'{"error": {"message": "too long", "type": "x"}}', "invalid_request_error", "too long"),
        (422, b'{"detail": [{"loc": ["body"]}]}', "invalid_request_error", '[{"loc":["body"]}]'),
        (403, b'{"error": "no"}', "permission_error", "no"),
        (404, b'{"message": "none"}', "not_found_error", "none"),
        (429, b"slow down", "rate_limit_error", "slow down"),
        (502, b"", "api_error", "the model's server answered with status 502"),
        (500, b'{"error": {}}', "api_error", "the model's server answered with status 500"),
        (529, b"[]", "overloaded_error", "[]"),
    ],
)
def test_any_servers_error_is_told_in_anthropics_shape(status: int, content: bytes, kind: str, message: str) -> None:
    found = from_openai(status, content, "req_1")
    assert found == {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}
