"""Answers that are a little wrong, as the official clients read them: the same on every surface, whole and streamed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from anthropic import Anthropic
from openai import OpenAI

from router.wire.sse import encode
from tests.clients.conftest import KEY, playing
from tests.fakes import FakeUpstream, World

EVENTS = {"content-type": "text/event-stream"}
DONE = b"data: [DONE]\n\n"
HI: Any = [{"role": "user", "content": "hi"}]
TOOL: Any = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
EMOJI = "\U0001f600"
Said = tuple[str, list[tuple[str, Any]], str]
"""A text, calls as (name, arguments), and why it ended."""


def chunk(delta: Any = None, finish: Any = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta if delta is not None else {}, "finish_reason": finish}
    head = {"id": "chatcmpl-x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return encode(head | {"choices": [choice]} | more)


def call(index: Any = 0, id_: Any = "a", name: Any = "look", arguments: Any = "{}", **more: Any) -> dict[str, Any]:
    found = {"index": index, "id": id_, "type": "function", "function": {"name": name, "arguments": arguments}} | more
    return {k: v for k, v in found.items() if v != "left out"}


def calls(*listed: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(listed)}


def more_of(index: Any, arguments: Any, **more: Any) -> dict[str, Any]:
    return {"tool_calls": [{"index": index, "function": {"arguments": arguments}, **more}]}


ROLE = chunk({"role": "assistant", "content": ""})
ONE, TWO = ("look", {"x": 1}), ("look", {"x": 2})
STOP, ENDS = chunk(finish="stop"), chunk(finish="tool_calls")
HALVES = (
    chunk({"content": "one"}).replace(b'"one"', b'"one \\ud83d"'),
    chunk({"content": "x"}).replace(b'"x"', b'"\\ude00"'),
)
PARTS = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "one two"}]
FIRST, SECOND = call(0, "a", "look", '{"x":1}'), call(0, "b", "look", '{"x":2}')

STREAMS: dict[str, tuple[tuple[bytes, ...], Said]] = {
    "two calls at index 0": (
        (ROLE, chunk({"tool_calls": [FIRST]}), chunk({"tool_calls": [SECOND]}), ENDS),
        ("", [ONE, TWO], "tool_calls"),
    ),
    "two calls at index 0 in pieces": (
        (
            ROLE,
            chunk({"tool_calls": [call(0, "a", "look", "")]}),
            chunk(more_of(0, '{"x"')),
            chunk(more_of(0, ":1}")),
            chunk({"tool_calls": [call(0, "b", "look", "")]}),
            chunk(more_of(0, '{"x":2}')),
            ENDS,
        ),
        ("", [ONE, TWO], "tool_calls"),
    ),
    "two calls at index 0 in one chunk": ((chunk(calls(FIRST, SECOND)), ENDS), ("", [ONE, TWO], "tool_calls")),
    "calls counted from 1": (
        (
            ROLE,
            chunk({"tool_calls": [call(1, "a", "look", "")]}),
            chunk(more_of(1, '{"x":1}')),
            chunk({"tool_calls": [call(2, "b", "look", "")]}),
            chunk(more_of(2, '{"x":2}')),
            ENDS,
        ),
        ("", [ONE, TWO], "tool_calls"),
    ),
    "indexes of text": (
        (ROLE, chunk({"tool_calls": [call("0", "a", "look", '{"x":1}')]}), ENDS),
        ("", [ONE], "tool_calls"),
    ),
    "no indexes": (
        (
            ROLE,
            chunk({"tool_calls": [call("left out", "a", "look", '{"x":1}')]}),
            chunk({"tool_calls": [call("left out", "b", "look", '{"x":2}')]}),
            ENDS,
        ),
        ("", [ONE, TWO], "tool_calls"),
    ),
    "arguments of an object": (
        (ROLE, chunk({"tool_calls": [call(arguments={"x": 1})]}), ENDS),
        ("", [ONE], "tool_calls"),
    ),
    "arguments null": ((ROLE, chunk({"tool_calls": [call(arguments=None)]}), ENDS), ("", [("look", {})], "tool_calls")),
    "arguments left out": (
        (
            ROLE,
            chunk({"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "look"}}]}),
            ENDS,
        ),
        ("", [("look", {})], "tool_calls"),
    ),
    "arguments empty": ((ROLE, chunk({"tool_calls": [call(arguments="")]}), ENDS), ("", [("look", {})], "tool_calls")),
    "id null": ((ROLE, chunk({"tool_calls": [call(id_=None)]}), ENDS), ("", [("look", {})], "tool_calls")),
    "id left out": ((ROLE, chunk({"tool_calls": [call(id_="left out")]}), ENDS), ("", [("look", {})], "tool_calls")),
    "id a number": ((ROLE, chunk({"tool_calls": [call(id_=7)]}), ENDS), ("", [("look", {})], "tool_calls")),
    "one id twice": (
        (
            ROLE,
            chunk({"tool_calls": [call(0, "a", "look", '{"x":1}')]}),
            chunk({"tool_calls": [call(1, "a", "look", '{"x":2}')]}),
            ENDS,
        ),
        ("", [ONE, TWO], "tool_calls"),
    ),
    "id, name and type with each piece": (
        (
            ROLE,
            chunk({"tool_calls": [call(0, "a", "look", '{"x"')]}),
            chunk({"tool_calls": [call(0, "a", "look", ":1}")]}),
            ENDS,
        ),
        ("", [ONE], "tool_calls"),
    ),
    "id and name empty, type null with each piece": (
        (
            ROLE,
            chunk({"tool_calls": [call(0, "a", "look", '{"x"')]}),
            chunk({"tool_calls": [call(0, "", "", ":1}", type=None)]}),
            ENDS,
        ),
        ("", [ONE], "tool_calls"),
    ),
    "a call that is null": (
        (ROLE, chunk({"tool_calls": [None]}), chunk({"tool_calls": [None, FIRST]}), ENDS),
        ("", [ONE], "tool_calls"),
    ),
    "calls that are no list": ((ROLE, chunk({"tool_calls": FIRST}), ENDS), ("", [ONE], "tool_calls")),
    "a call without its type": (
        (ROLE, chunk({"tool_calls": [call(type="left out")]}), ENDS),
        ("", [("look", {})], "tool_calls"),
    ),
    "a function instead of a tool": (
        (ROLE, chunk({"function_call": {"name": "look", "arguments": '{"x":1}'}}), chunk(finish="function_call")),
        ("", [ONE], "tool_calls"),
    ),
    "stop with calls": ((ROLE, chunk({"tool_calls": [FIRST]}), STOP), ("", [ONE], "tool_calls")),
    "calls without an end": ((ROLE, chunk({"tool_calls": [FIRST]})), ("", [ONE], "tool_calls")),
    "tool_calls without calls": ((ROLE, chunk({"content": "one two"}), ENDS), ("one two", [], "stop")),
    "content in parts": (
        (ROLE, chunk({"content": PARTS[:1]}), chunk({"content": PARTS[1:]}), STOP),
        ("one two", [], "stop"),
    ),
    "half an emoji": ((ROLE, *HALVES, STOP), (f"one {EMOJI}", [], "stop")),
    "half an emoji alone": ((ROLE, HALVES[0], STOP), ("one \ufffd", [], "stop")),
    "half an emoji, then text": ((ROLE, HALVES[0], chunk({"content": "two"}), STOP), ("one \ufffdtwo", [], "stop")),
    "half an emoji in arguments": (
        (
            ROLE,
            chunk({"tool_calls": [call(0, "a", "look", '{"x":"y')]}).replace(b"y", b"\\ud83d"),
            chunk(more_of(0, 'y"}')).replace(b"y", b"\\ude00"),
            ENDS,
        ),
        ("", [("look", {"x": EMOJI})], "tool_calls"),
    ),
    "choices null": ((ROLE, chunk({"content": "one"}), chunk(choices=None), STOP), ("one", [], "stop")),
    "choices left out": (
        (ROLE, chunk({"content": "one"}), encode({"id": "x", "object": "chat.completion.chunk"}), STOP),
        ("one", [], "stop"),
    ),
    "a choice that is null": ((ROLE, chunk({"content": "one"}), chunk(choices=[None]), STOP), ("one", [], "stop")),
    "delta null": (
        (
            ROLE,
            chunk({"content": "one"}),
            encode({"choices": [{"index": 0, "delta": None, "finish_reason": None}]}),
            STOP,
        ),
        ("one", [], "stop"),
    ),
    "a message for a delta": (
        (ROLE, encode({"choices": [{"index": 0, "message": {"role": "assistant", "content": "one"}}]}), STOP),
        ("one", [], "stop"),
    ),
    "no end": ((ROLE, chunk({"content": "one"})), ("one", [], "stop")),
    "an end that is empty, then one": (
        (ROLE, chunk({"content": "one"}, ""), chunk(None, 5), STOP),
        ("one", [], "stop"),
    ),
    "a role with each": (
        (*(chunk({"role": "assistant", "content": text}) for text in ("one", " two")), STOP),
        ("one two", [], "stop"),
    ),
    "no role": ((chunk({"content": "one"}), STOP), ("one", [], "stop")),
    "no index": ((ROLE, encode({"choices": [{"delta": {"content": "one"}}]}), STOP), ("one", [], "stop")),
    "what names it of other types": (
        (chunk({"role": "assistant", "content": "one"}, id=5, model=[1], created="now"), STOP),
        ("one", [], "stop"),
    ),
    "lists without places": (
        (
            ROLE,
            chunk({"reasoning_details": [{"text": "a"}], "content": "one"}),
            chunk({"reasoning_details": [{"text": "b"}]}),
            STOP,
        ),
        ("one", [], "stop"),
    ),
    "NaN": (
        (ROLE, chunk({"content": "one"}).replace(b'"index":0', b'"index":0,"logprobs":NaN'), STOP),
        ("one", [], "stop"),
    ),
    "usage of text": ((ROLE, chunk({"content": "one"}, usage="none"), STOP), ("one", [], "stop")),
    "bare JSON": ((ROLE, chunk({"content": "one"})[6:], STOP), ("one", [], "stop")),
    "nothing said": (
        (ROLE, chunk({"content": "one"}), b"data: \n\n", b"event: ping\n\n", b"id: 1\n\n", b"data: null\n\n", STOP),
        ("one", [], "stop"),
    ),
}


def whole(message: Any, finish: Any = "stop", **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {"id": "chatcmpl-x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]} | more


TEXT = {"role": "assistant", "content": "one"}
WHOLES: dict[str, tuple[dict[str, Any], Said]] = {
    "two calls of one id": (
        whole(calls(call("left out", "a", "look", '{"x":1}'), call("left out", "a", "look", '{"x":2}')), "tool_calls"),
        ("", [ONE, TWO], "tool_calls"),
    ),
    "arguments of an object": (whole(calls(call(arguments={"x": 1})), "tool_calls"), ("", [ONE], "tool_calls")),
    "arguments null": (whole(calls(call(arguments=None)), "tool_calls"), ("", [("look", {})], "tool_calls")),
    "id null": (whole(calls(call(id_=None)), "tool_calls"), ("", [("look", {})], "tool_calls")),
    "type left out": (whole(calls(call(type="left out")), "tool_calls"), ("", [("look", {})], "tool_calls")),
    "a call that is null": (whole(calls(None, FIRST), "tool_calls"), ("", [ONE], "tool_calls")),
    "stop with calls": (whole(calls(FIRST)), ("", [ONE], "tool_calls")),
    "tool_calls without calls": (whole(TEXT, "tool_calls"), ("one", [], "stop")),
    "a function instead of a tool": (
        whole({"role": "assistant", "function_call": {"name": "look", "arguments": '{"x":1}'}}, "function_call"),
        ("", [ONE], "tool_calls"),
    ),
    "content in parts": (whole({"role": "assistant", "content": PARTS}), ("one two", [], "stop")),
    "no end": (whole(TEXT, None), ("one", [], "stop")),
    "no role": (whole({"content": "one"}), ("one", [], "stop")),
    "no head": ({"choices": [{"message": TEXT}]}, ("one", [], "stop")),
    "odd names and counts": (
        whole(TEXT, id=5, model={}, created=None, usage={"prompt_tokens": "5"}),
        ("one", [], "stop"),
    ),
}


@pytest.fixture
def upstream(proxy: World, tier: str) -> Iterator[FakeUpstream]:
    """The tier's upstream, to be told what it answers; the proxy is every client's, so it plays again afterwards."""
    yield getattr(proxy, tier)
    playing(proxy)


@pytest.fixture(scope="module")
def openai(proxy: World) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{proxy.url}/v1", api_key=KEY, max_retries=0, timeout=20) as found:
        yield found


@pytest.fixture(scope="module")
def anthropic(proxy: World) -> Iterator[Anthropic]:
    with Anthropic(base_url=proxy.url, api_key=KEY, max_retries=0, timeout=20) as found:
        yield found


def by_chat(client: OpenAI, model: str, *, stream: bool) -> Said:
    asked: Any = {"model": model, "messages": HI, "tools": [TOOL]}
    if stream:
        with client.chat.completions.stream(**asked) as events:
            for _ in events:
                pass
            found = events.get_final_completion()
    else:
        found = client.chat.completions.create(**asked)
    assert isinstance(found.id, str) and isinstance(found.model, str) and found.created and found.object
    choice = found.choices[0]
    said: Any = choice.message.tool_calls or []
    assert choice.message.role == "assistant" and choice.index == 0
    assert len({c.id for c in said}) == len(said) and all(c.id and c.type == "function" for c in said)
    return (
        choice.message.content or "",
        [(c.function.name, json.loads(c.function.arguments)) for c in said],
        choice.finish_reason,
    )


def by_responses(client: OpenAI, model: str, *, stream: bool) -> Said:
    asked: Any = {"model": model, "input": "hi", "store": False}
    if stream:
        with client.responses.stream(**asked) as events:
            for _ in events:
                pass
            found: Any = events.get_final_response()
    else:
        found = client.responses.create(**asked)
    assert found.status == "completed"
    said = [item for item in found.output if item.type == "function_call"]
    assert len({c.call_id for c in said}) == len(said)
    return found.output_text, [(c.name, json.loads(c.arguments)) for c in said], "tool_calls" if said else "stop"


def by_messages(client: Anthropic, model: str, *, stream: bool) -> Said:
    asked: Any = {"model": model, "messages": HI, "max_tokens": 99}
    if stream:
        with client.messages.stream(**asked) as events:
            found = events.get_final_message()
    else:
        found = client.messages.create(**asked)
    said: Any = [block for block in found.content if block.type == "tool_use"]
    text = "".join(block.text for block in found.content if block.type == "text")
    assert len({c.id for c in said}) == len(said)
    ends = {"tool_use": "tool_calls", "end_turn": "stop"}
    return text, [(c.name, c.input) for c in said], ends[str(found.stop_reason)]


@pytest.mark.parametrize("kind", STREAMS)
def test_a_stream_that_is_a_little_wrong_says_the_same_to_all(
    upstream: FakeUpstream, openai: OpenAI, anthropic: Anthropic, tier: str, kind: str
) -> None:
    events, said = STREAMS[kind]
    upstream.always(raw=b"".join(events) + DONE, headers=EVENTS)
    model = f"locum/{tier}"
    found = [by_chat(openai, model, stream=True), by_responses(openai, model, stream=True)]
    found.append(by_messages(anthropic, model, stream=True))
    assert found == [said] * 3


@pytest.mark.parametrize("kind", WHOLES)
def test_an_answer_that_is_a_little_wrong_says_the_same_to_all(
    upstream: FakeUpstream, openai: OpenAI, anthropic: Anthropic, tier: str, kind: str
) -> None:
    body, said = WHOLES[kind]
    upstream.always(raw=orjson.dumps(body))
    model = f"locum/{tier}"
    found = [by_chat(openai, model, stream=False), by_responses(openai, model, stream=False)]
    found.append(by_messages(anthropic, model, stream=False))
    assert found == [said] * 3
