"""Answers put together from pieces, in whatever way a server sends them."""

from __future__ import annotations

from typing import Any

import pytest

from router.contracts.records import Usage
from router.wire.assembly import Assembly, BlockOrder
from router.wire.usage import ToldUsage

CITIES = [("get_weather", '{"city":"Paris"}'), ("get_weather", '{"city":"Rome"}')]
PARIS, ROME = (arguments for _, arguments in CITIES)


def chunk(delta: dict[str, Any] | None = None, finish: Any = None, **more: Any) -> dict[str, Any]:
    return {"model": "m", "choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish}], **more}


@pytest.mark.parametrize(
    ("chunks", "outgrown"),
    [
        ([chunk({"content": "a"}), chunk({"content": "b"}, usage={"completion_tokens": 2})], False),
        ([chunk({"content": "a"}, usage={"completion_tokens": 1}), chunk({"content": "b"})], True),
        ([chunk({"content": "a"}, usage={"completion_tokens": 1}), chunk({}, "stop")], False),
        ([chunk(usage={"output_tokens": 1}), chunk({"content": "b"}), chunk(usage={"output_tokens": 2})], False),
        ([chunk({"content": "a"}, usage=None), chunk({"content": "b"})], True),
    ],
)
def test_what_was_said_after_the_last_usage_outgrows_it(chunks: list[dict[str, Any]], *, outgrown: bool) -> None:
    assembly = Assembly()
    for each in chunks:
        assembly.add(each)
    assert assembly.outgrown is outgrown


def part(arguments: Any = None, name: str | None = None, **more: Any) -> dict[str, Any]:
    return {"function": {k: v for k, v in (("name", name), ("arguments", arguments)) if v is not None}, **more}


def weather(arguments: Any, **more: Any) -> dict[str, Any]:
    return part(arguments, "get_weather", **more)


def assembled(*deltas: dict[str, Any]) -> Assembly:
    assembly = Assembly()
    for delta in deltas:
        assembly.add(chunk(delta))
    return assembly


def calls(*parts: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Names and arguments, of the message and as a surface tells them: both are the same."""
    found = assembled(*({"tool_calls": p} for p in parts)).message.get("tool_calls", [])
    assembly = Assembly()
    order, told = BlockOrder(assembly), {}
    for p in parts:
        for piece in order.add(assembly.add(chunk({"tool_calls": p}))):
            told.setdefault(piece.call, []).append(piece.text)
    for piece in order.rest():
        told.setdefault(piece.call, []).append(piece.text)
    shown = [(c.name, "".join(texts)) for c, texts in told.items() if c]
    assert shown == [tuple(call["function"].values()) for call in found]
    return shown


@pytest.mark.parametrize(
    "parts",
    [
        [[weather(PARIS, index=0, id="a")], [weather(ROME, index=0, id="b")]],
        [[weather(PARIS, index=0)], [weather(ROME, index=0)]],
        [[weather(PARIS, id="a")], [weather(ROME, id="b")]],
        [[weather(PARIS)], [weather(ROME)]],
        [[weather(PARIS, index=None, id="a")], [weather(ROME, index=None, id="b")]],
        [[weather(PARIS, index=-1, id="a"), weather(ROME, index=-1, id="b")]],
        [[weather(PARIS, index=10**9, id="a")], [weather(ROME, index=True, id="b")]],
        [[weather(PARIS, index="0", id="a")], [weather(ROME, index="1", id="b")]],
        [[weather(PARIS, index=0, id="same")], [weather(ROME, index=1, id="same")]],
        [[weather(PARIS, index=0, id=1)], [weather(ROME, index=0, id=2)]],
        [[weather({"city": "Paris"}, index=0, id="a")], [weather({"city": "Rome"}, index=0, id="b")]],
        [[weather(PARIS, index=7, id="a")], [weather(ROME, index=3, id="b")]],
        [[weather("", index=0, id="a")], [part('{"city":', index=0)], [part('"Paris"}', index=0)],
         [weather("", index=0, id="b")], [part(ROME, index=0)]],
        [[weather("", id="a"), weather("", id="b")],
         [part('{"city":'), part('{"city":')], [part('"Paris"}'), part('"Rome"}')]],
        [[weather('{"city":', index=0, id="a")], [weather('{"city":', index=1, id="b")],
         [weather('"Paris"}', index=0, id="a")], [weather('"Rome"}', index=1, id="b")]],
        [[weather('{"city":', index=0, id="a"), weather('{"city":', index=1, id="b")],
         [part('"Rome"}', index=1, id=""), part('"Paris"}', index=0, id="")]],
        [[weather(PARIS, index=0, id="a")], [weather(PARIS, index=0, id="a")], [weather(ROME, index=1, id="b")]],
    ],
)  # fmt: skip
def test_two_calls_are_two_however_they_are_numbered(parts: Any) -> None:
    assert calls(*parts) == CITIES


@pytest.mark.parametrize(
    "parts",
    [
        [[weather('{"ci', index=0, id="a")], [weather('ty":"Paris"}', index=0, id="a")]],
        [[weather('{"ci', index=0, id="a")], [part('ty":"Paris"}', index=0, id="")]],
        [[weather('{"ci', index=0, id="a")], [part('ty":"Paris"}', index=0, id="made up anew")]],
        [[weather('{"ci', id="a")], [part('ty":"Paris"}', id="made up anew")]],
        [[weather('{"ci', id="a")], [part('ty":"Paris"}')]],
        [[weather('{"ci')], [weather('ty":"Paris"}')]],
        [[weather("", index=0, id="a")], [weather('{"ci', index=0, id="a")],
         [weather('ty":"Paris"}', index=0, id="a")]],
        [[part(name="get_", index=0, id="a")], [part(name="weather", index=0)], [part(PARIS, index=0)]],
        [[part(name="get_", index=0, id="a")], [part(PARIS, name="get_weather", index=0)]],
        [[weather({}, index=0, id="a")], [part(PARIS, index=0)]],
        [[weather({"city": "Paris"}, index=0)], [part({"city": "Paris"}, index=0)]],
        [[weather(None, index=0, id="a")], [None, part(PARIS, index=0), 5]],
        [weather(PARIS, index=0, id="a")],
    ],
)  # fmt: skip
def test_one_call_is_one_however_often_it_is_named(parts: Any) -> None:
    assert calls(*parts) == CITIES[:1]


@pytest.mark.parametrize("nothing", ["", None, {}, [], " ", "null"])
def test_a_call_without_arguments_has_an_empty_object(nothing: Any) -> None:
    given = {"name": "now", "arguments": nothing}
    streamed = assembled({"tool_calls": [{"index": 0, "id": "a", "function": given}]})
    whole = Assembly()
    whole.add({"choices": [{"index": 0, "message": {"tool_calls": [{"id": "a", "function": given}]}}]})
    for found in (streamed, whole):
        assert found.message["tool_calls"] == [
            {"id": "a", "type": "function", "function": {"name": "now", "arguments": "{}"}}
        ]


def test_every_call_of_a_whole_answer_is_one_of_its_own() -> None:
    same = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    whole = Assembly()
    whole.add({"choices": [{"index": 0, "message": {"content": None, "tool_calls": [same, same]}}]})
    assert len(whole.message["tool_calls"]) == 2


def test_what_came_with_a_call_stays_with_it() -> None:
    signed = {"extra_content": {"google": {"thought_signature": "s"}}}
    found = assembled({"tool_calls": [weather(PARIS, index=0, id="a", **signed)]}).message["tool_calls"]
    assert found == [{"id": "a", "type": "function", "function": {"name": CITIES[0][0], "arguments": PARIS}, **signed}]


def test_the_older_form_of_a_call_is_one() -> None:
    found = assembled({"function_call": {"name": "f", "arguments": '{"a"'}}, {"function_call": {"arguments": ":1}"}})
    assert found.message["tool_calls"] == [
        {"id": None, "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    ]


def test_a_custom_tool_has_an_input() -> None:
    found = assembled(
        {"tool_calls": [{"index": 0, "id": "a", "type": "custom", "custom": {"name": "sql"}}]},
        {"tool_calls": [{"index": 0, "custom": {"input": "select"}}]},
    )
    assert found.message["tool_calls"] == [{"id": "a", "type": "custom", "custom": {"name": "sql", "input": "select"}}]


def test_more_calls_than_an_answer_has_are_passed_over_and_told() -> None:
    found = assembled({"tool_calls": [weather(PARIS, id=f"c{n}") for n in range(500)]})
    assert len(found.message["tool_calls"]) == 128
    assert not found.whole


THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], {"content": "ab"}),
        ([THOUGHT, {"type": "text", "text": "a"}], {"content": "a", "reasoning_content": "hm"}),
        ([{"type": "thinking", "thinking": "hm"}, "a"], {"content": "a", "reasoning_content": "hm"}),
        ({"type": "text", "text": "a"}, {"content": "a"}),
        ([{"type": "refusal", "refusal": "no"}], {"content": None, "refusal": "no"}),
        ([{"type": "reference", "reference_ids": [1]}, {"type": "text", "text": "a"}],
         {"content": "a", "parts": [{"type": "reference", "reference_ids": [1]}]}),
        ([], {"content": None}),
        ("", {"content": ""}),
        (None, {"content": None}),
    ],
)  # fmt: skip
def test_content_may_be_a_list_of_parts(content: Any, said: dict[str, Any]) -> None:
    whole = Assembly()
    whole.add({"choices": [{"index": 0, "message": {"role": "assistant", "content": content}}]})
    assert whole.message == assembled({"role": "assistant"}, {"content": content}).message
    assert whole.message == {"role": "assistant", **said}
    assert whole.whole


@pytest.mark.parametrize(
    "delta",
    [{"reasoning": "hm"}, {"reasoning_content": "hm"}, {"reasoning": "hm", "reasoning_content": "hm"},
     {"reasoning_content": [{"type": "text", "text": "hm"}]}],
)  # fmt: skip
def test_reasoning_is_told_once_under_one_name(delta: dict[str, Any]) -> None:
    found = assembled({"role": "assistant", "content": ""}, delta, delta, {"content": "a"})
    assert found.message == {"role": "assistant", "content": "a", "reasoning_content": "hmhm"}
    assert found.tokens == 3


def test_fields_of_some_providers_add_up() -> None:
    found = assembled(
        {"images": [1], "audio": {"id": "x"}, "note": "a", "id": "m"},
        {"images": [2], "audio": {"data": "y"}, "note": "b", "id": "m", "nothing": None},
    )
    assert found.message == {
        "role": "assistant", "content": None,
        "images": [1, 2], "audio": {"id": "x", "data": "y"}, "note": "ab", "id": "m",
    }  # fmt: skip


COUNTS = {"prompt_tokens": 7, "completion_tokens": 3}


@pytest.mark.parametrize(
    "chunks",
    [
        [chunk(usage={"prompt_tokens": 7, "completion_tokens": n}) for n in (0, 1, 2, 3)],
        [chunk(), {"usage": COUNTS}],
        [chunk(), {"choices": None, "usage": COUNTS}],
        [{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": COUNTS}]}],
        [chunk(usage=COUNTS), chunk(usage={"prompt_tokens": 0, "completion_tokens": 0}), chunk(usage=None)],
        [chunk(usage=COUNTS), chunk(usage={}), chunk(usage=[1])],
    ],
)
def test_usage_counts_once_wherever_it_stands(chunks: list[dict[str, Any]]) -> None:
    assembly = Assembly()
    for each in chunks:
        assembly.add(each)
    assert assembly.usage == ToldUsage(Usage(input_tokens=7, output_tokens=3))


@pytest.mark.parametrize(
    ("odd", "whole"),
    [
        ({"choices": {"a": 1}}, False),
        ({"choices": [5]}, False),
        ({"choices": [None]}, True),
        ({"choices": [{"index": 0, "delta": "text"}]}, False),
        ({"choices": [{"index": 0, "delta": [1]}]}, False),
        ({"choices": [{"index": 0, "delta": {"content": 5}}]}, False),
        ({"choices": [{"index": 0, "delta": {"tool_calls": "x"}}]}, False),
        ({"choices": None, "model": [1]}, True),
        ({"choices": [{"index": 0, "delta": {}, "finish_reason": 5}]}, False),
        ({"choices": [{"delta": None, "logprobs": {"content": [None, {"logprob": "x"}]}}]}, True),
    ],
)
def test_what_cannot_be_read_is_passed_over_and_marked(odd: dict[str, Any], whole: bool) -> None:
    assembly = Assembly()
    assembly.add(chunk({"content": "a"}))
    assembly.add(odd)
    assert (assembly.message["content"], assembly.finish_reason, assembly.model) == ("a", None, "m")
    assert assembly.whole is whole


def told(*deltas: dict[str, Any]) -> list[tuple[str, str]]:
    assembly = Assembly()
    order, found = BlockOrder(assembly), []
    for delta in deltas:
        found += order.add(assembly.add(chunk(delta)))
    return [(p.call.name if p.call else p.kind, p.text) for p in [*found, *order.rest()]]


def test_pieces_of_a_block_follow_each_other() -> None:
    first, second = part('{"a', "f", index=0, id="a"), part("{", "g", index=1, id="b")
    mixed = [{"content": "I look."}, {"tool_calls": [first]}, {"tool_calls": [second]}, {"content": " Now."},
             {"tool_calls": [part('":1}', index=0)]}, {"tool_calls": [part("}", index=1)]}]  # fmt: skip
    assert told(*mixed) == [("text", "I look."), ("f", '{"a'), ("f", '":1}'), ("g", "{}"), ("text", " Now.")]


def test_a_call_comes_with_its_whole_name_even_where_nothing_follows_it() -> None:
    assert told(
        {"tool_calls": [part(name="get_", index=0)]},
        {"tool_calls": [part("", name="time", index=0, id="a")]},
        {"content": "Wait."},
    ) == [("get_time", "{}"), ("text", "Wait.")]


def test_what_trails_a_call_that_was_left_is_left_out() -> None:
    a, b = weather(PARIS, index=0, id="a"), weather(ROME, index=1, id="b")
    assert told({"tool_calls": [a]}, {"tool_calls": [b]}, {"tool_calls": [part("x", index=0)]}) == CITIES
