"""What is wrong with an answer whatever was asked."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from router.contracts.decision import Deferral
from router.judges.soundness import AskedForm, out_of_set, structural, wanted
from tests.router.answers import FREE, JSON_TEAM, TEAM, seen

WEATHER = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"]}
OFFER = [
    {"type": "function", "function": {"name": "weather", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "now"}},
]
TOOLS = wanted({"tools": OFFER})


@pytest.mark.parametrize(
    "text",
    [
        "card_arrival",
        "The capital of France is Paris.",
        "I'm sorry to hear that your card was stolen. Please call us at once, and we will block it for you.",
        "Sorry for the delay! Your parcel left on Monday.",
        "I can help you with that.",
        "0",
        "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n| 5 | 6 |",
        "A " + "-" * 60 + " B",
        "def f(x):\n    return x\n\n\ndef g(x):\n    return f(x)\n",
        "10" + "0" * 60,
    ],
)
def test_ordinary_answers_leave(text: str) -> None:
    assert structural(seen(text), FREE) is None


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't assist with that.",
        "I’m sorry, I cannot help with this request.",
        "Sorry, I can't do that.",
        "Unfortunately, I don't have access to your account.",
        "As an AI language model, I have no opinions.",
        "I cannot provide that information.",
        "  I am unable to answer.",
        "Es tut mir leid, aber ich kann dabei nicht helfen.",
        "Lo siento, pero no puedo ayudar.",
        "对不起，我无法回答。",
    ],
)
def test_a_refusal_is_known_by_its_opening(text: str) -> None:
    assert structural(seen(text), FREE) is Deferral.REFUSAL
    assert structural(seen(text, finish=None), FREE) is Deferral.REFUSAL


def test_refusing_words_inside_a_long_answer_are_part_of_it() -> None:
    letter = "Dear Sir, I'm sorry, but I can't assist with that. " + "The order of May has been found again. " * 2
    essay = "I'm sorry, but I can't come. " + " ".join(f"line {i} of the letter" for i in range(60))
    assert structural(seen(letter), FREE) is None
    assert structural(seen(essay), FREE) is None


def test_the_wires_own_marks_of_refusal_count() -> None:
    assert structural(seen(None, refusal="no"), FREE) is Deferral.REFUSAL
    assert structural(seen("Well", finish="content_filter"), FREE) is Deferral.REFUSAL


@pytest.mark.parametrize("text", ["", None, "  \n "])
def test_an_empty_answer_does_not_leave_but_a_blank_beginning_may_go_on(text: str | None) -> None:
    assert structural(seen(text), FREE) is Deferral.EMPTY
    assert structural(seen(text, finish=None), FREE) is None


def test_nothing_but_white_space_for_long_is_empty_even_before_the_end() -> None:
    assert structural(seen("\n" * 24, finish=None), FREE) is Deferral.EMPTY


def test_an_answer_cut_off_leaves_only_where_the_client_set_the_length() -> None:
    assert structural(seen("and then", finish="length"), FREE) is Deferral.TRUNCATED
    assert structural(seen("and then", finish="length"), AskedForm(limited=True)) is None


@pytest.mark.parametrize(
    "text",
    [
        "Yes. " + "I do not know. " * 20,
        "The answer is the answer is the answer is the answer is the answer is the answer is the answer",
        "ha" * 40,
        "!" * 200,
        "\n".join(f"{i % 3}. Call the bank about the lost card." for i in range(30)),
        "卡片丢失了请联系银行。" * 8,
    ],
)
def test_a_loop_does_not_leave(text: str) -> None:
    assert structural(seen(text), FREE) is Deferral.REPETITION


@pytest.mark.parametrize(
    "text",
    ['{"team": "billing"}', ' {"team":"cards"}\n'],
)
def test_json_that_fits_leaves(text: str) -> None:
    assert structural(seen(text), JSON_TEAM) is None
    assert structural(seen(text), AskedForm(json=True)) is None


@pytest.mark.parametrize(
    "text",
    [
        '{"team": "sales"}',
        '{"team": "billing", "why": "x"}',
        "{}",
        '{"team": "billing"',
        '```json\n{"team": "billing"}\n```',
        "billing",
        '["billing"]',
    ],
)
def test_json_that_breaks_the_schema_does_not_leave(text: str) -> None:
    assert structural(seen(text), JSON_TEAM) is Deferral.SCHEMA


def test_of_a_stream_only_the_opening_can_be_told() -> None:
    assert structural(seen('{"tea', finish=None), JSON_TEAM) is None
    assert structural(seen("Sure! {", finish=None), JSON_TEAM) is Deferral.SCHEMA
    assert structural(seen('["a', finish=None), AskedForm(json=True)) is Deferral.SCHEMA


def test_repeated_entries_in_valid_json_are_data() -> None:
    assert structural(seen('{"row": [' + "0.25, " * 100 + "0.25]}"), AskedForm(json=True)) is None


def test_json_cut_at_the_clients_own_length_is_as_asked() -> None:
    assert structural(seen('{"team": "bil', finish="length"), AskedForm(json=True, limited=True)) is None


def test_a_schema_that_refers_to_a_url_fetches_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        away = AskedForm(json=True, schema={"$ref": f"http://127.0.0.1:{server.getsockname()[1]}/s.json"})
        assert structural(seen("{}"), away) is None
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"required": 5},
        {"$ref": "#"},
        {"$ref": "#/nowhere"},
        {"$id": "http://[::", "properties": {"team": {"$ref": "x"}}},
        {"patternProperties": {"(a+)+$": {}}},
    ],
)
def test_a_schema_by_which_nothing_can_be_told_is_no_fault_of_the_answers(schema: dict[str, Any]) -> None:
    assert structural(seen('{"team": "billing"}'), AskedForm(json=True, schema=schema)) is None
    assert structural(seen("billing"), AskedForm(json=True, schema=schema)) is Deferral.SCHEMA


def test_a_clients_regular_expression_is_not_run() -> None:
    slow = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}}
    assert structural(seen('{"a": "' + "a" * 64 + '!"}'), AskedForm(json=True, schema=slow)) is None


def call(arguments: str, name: str = "weather") -> dict[str, Any]:
    return {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}


OSLO = call('{"city": "Oslo"}')


@pytest.mark.parametrize(
    "bad",
    [
        call('{"city": '),
        call('["Oslo"]'),
        call('{"city": "Paris"}'),
        call("{}"),
        call('{"x": 1}', name="now"),
        call('{"city": "Oslo"}', name=""),
        call('{"city": "Oslo"}', name="wether"),
        {"id": "1"},
        {"id": "1", "type": "custom", "custom": {"name": "weather", "input": "Oslo"}},
        None,
    ],
)
def test_calls_are_of_tools_that_were_offered_with_arguments_that_fit(bad: Any) -> None:
    assert structural(seen(None, "tool_calls", tool_calls=[OSLO, call("{}", "now"), call("", "now")]), TOOLS) is None
    for calls in ([bad], [OSLO, bad]):
        said = seen(None, "tool_calls", tool_calls=calls)
        assert structural(said, TOOLS) is Deferral.SCHEMA and out_of_set(said, TOOLS) is Deferral.SCHEMA


def test_a_call_under_way_may_become_one_and_one_cut_off_is_none() -> None:
    begun = [call('{"city": "Os')]
    assert structural(seen(None, None, tool_calls=begun), TOOLS) is None
    assert structural(seen(None, "length", tool_calls=begun), TOOLS) is Deferral.SCHEMA
    assert TOOLS.closed, "so that no call of a stream leaves before it was looked at"


def test_a_choice_among_the_tools_is_kept() -> None:
    text, one = seen("It is sunny."), seen(None, "tool_calls", tool_calls=[OSLO])
    several = seen(None, "tool_calls", tool_calls=[OSLO, OSLO])
    named = {"type": "function", "function": {"name": "now"}}
    calls = [one, several]
    for choice, allowed in (("auto", [text, *calls]), ("required", calls), ("none", [text]), (named, [])):
        form = wanted({"tools": OFFER, "tool_choice": choice})
        assert [said for said in (text, *calls) if structural(said, form) is None] == allowed
    single = wanted({"tools": OFFER, "parallel_tool_calls": False})
    assert structural(one, single) is None and structural(several, single) is Deferral.SCHEMA


def test_a_call_of_a_tool_that_nobody_offered_is_no_answer() -> None:
    said = seen("It is sunny.", "tool_calls", tool_calls=[OSLO])
    for offered in ({"messages": []}, {"tools": [{"type": "function"}]}, {"tools": "all"}):
        assert structural(said, wanted(offered)) is Deferral.SCHEMA
    assert structural(said, wanted({"functions": [{"name": "weather", "parameters": WEATHER}]})) is None
    custom = {"id": "1", "type": "custom", "custom": {"name": "note", "input": "any text"}}
    form = wanted({"tools": [{"type": "custom", "custom": {"name": "note"}}]})
    assert structural(seen(None, "tool_calls", tool_calls=[custom]), form) is None


def test_an_answer_by_a_schema_may_be_a_call_instead() -> None:
    form = wanted({"tools": OFFER, "response_format": {"type": "json_schema", "json_schema": {"schema": TEAM}}})
    called = seen(None, "tool_calls", tool_calls=[OSLO])
    assert structural(called, form) is None and out_of_set(called, form) is None
    assert structural(seen("cards"), form) is Deferral.SCHEMA


@pytest.mark.parametrize(
    ("beside", "away"),
    [
        ({"annotations": [{"url": "http://x"}]}, True),
        ({"audio": {"transcript": "more"}}, True),
        ({"parts": [{"type": "image_url"}]}, True),
        ({"annotations": [], "audio": None, "provider_specific_fields": {"refusal": None}}, False),
        ({"reasoning_content": "It asks for a team.", "refusal": None}, False),
    ],
)
def test_an_answer_of_a_closed_set_is_its_text_alone(beside: dict[str, Any], away: bool) -> None:
    label, form = AskedForm(outside=lambda message: False), seen('{"team": "cards"}', **beside)
    assert structural(seen("cards", **beside), label) is (Deferral.OUTSIDE if away else None)
    assert structural(form, JSON_TEAM) is (Deferral.SCHEMA if away else None)
    assert structural(seen("cards", **beside), FREE) is None


def test_what_is_wanted_is_read_from_the_request() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "t", "schema": TEAM}}
    assert wanted({"response_format": form, "max_tokens": 5}) == AskedForm(json=True, schema=TEAM, limited=True)
    assert wanted({"response_format": {"type": "json_object"}}) == AskedForm(json=True)
    for nothing in ({}, {"response_format": {"type": "text"}}, {"response_format": "json"}, {"max_tokens": None}):
        assert wanted(nothing) == FREE
