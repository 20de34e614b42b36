"""What of a Responses request becomes what of a chat request; and what cannot, by its path."""

from __future__ import annotations

import re
from typing import Any

import pytest

from router.api.responses.items import Transcript, listed, new_ids, owner_of
from router.api.responses.request import chat_body, check, echo
from router.api.responses.tools import tools_of
from router.errors import BadRequest

RESPONSE = "resp_" + "ab" * 24
SEARCH = {"type": "web_search"}


def messages_of(given: Any) -> list[dict[str, Any]]:
    transcript = Transcript()
    for n, item in enumerate(listed(given, new_ids(RESPONSE))):
        transcript.add(item, f"input[{n}]")
    return transcript.messages


def chat(**body: Any) -> dict[str, Any]:
    found = {"model": "m", "input": "hi"} | body
    check(found)
    return chat_body(found, messages_of(found["input"]), tools_of(found)[0])


def moved(**body: Any) -> dict[str, Any]:
    """What the fields add to a plain chat request."""
    return {k: v for k, v in chat(**body).items() if k not in ("model", "messages")}


def user(*parts: dict[str, Any]) -> list[Any]:
    return [{"role": "user", "content": list(parts)}]


def call(n: int) -> dict[str, Any]:
    return {"type": "function_call", "call_id": f"call_{n}", "name": "f", "arguments": "{}", "id": f"fc_{n}"}


def output(n: int, said: Any = "ok") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": f"call_{n}", "output": said}


def asking(n: int) -> dict[str, Any]:
    return {"id": f"call_{n}", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    "given",
    [
        "hi",
        [{"role": "user", "content": "hi"}],
        [{"type": "message", "role": "user", "content": "hi", "id": None, "status": None}],
        user({"type": "input_text", "text": "hi"}),
    ],
)
def test_a_text_is_one_plain_message_in_whatever_form_it_comes(given: Any) -> None:
    assert messages_of(given) == [{"role": "user", "content": "hi"}]


def test_parts_have_their_equals_in_chat() -> None:
    sound, link = {"data": "UklGRg==", "format": "wav"}, "data:image/png;base64,AA=="
    (message,) = messages_of(
        user(
            {"type": "input_text", "text": "look"},
            {"type": "input_image", "image_url": link, "detail": "low"},
            {"type": "input_image", "image_url": link, "detail": "original"},
            {"type": "input_audio", "input_audio": sound},
            {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="},
        )
    )
    assert message["content"] == [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": link, "detail": "low"}},
        {"type": "image_url", "image_url": {"url": link, "detail": "high"}},
        {"type": "input_audio", "input_audio": sound},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="}},
    ]


def test_an_assistants_parts_are_its_words() -> None:
    content = [{"type": "output_text", "text": "No. ", "annotations": []}, {"type": "refusal", "refusal": "I can't."}]
    assert messages_of([{"type": "message", "role": "assistant", "content": content}]) == [
        {"role": "assistant", "content": "No. I can't."}
    ]


def test_calls_of_one_turn_are_one_message() -> None:
    said = {"role": "assistant", "content": "I look."}
    assert messages_of([{"role": "user", "content": "hi"}, said, call(0), call(1), output(0), output(1)]) == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "I look.", "tool_calls": [asking(0), asking(1)]},
        {"role": "tool", "tool_call_id": "call_0", "content": "ok"},
        {"role": "tool", "tool_call_id": "call_1", "content": "ok"},
    ]
    assert messages_of([call(0), said, output(0)])[0] == {
        "role": "assistant",
        "content": "I look.",
        "tool_calls": [asking(0)],
    }


def test_calls_of_two_turns_are_two_messages() -> None:
    assert [m["role"] for m in messages_of([call(0), output(0), call(1), output(1)])] == ["assistant", "tool"] * 2


def test_thoughts_are_passed_over() -> None:
    thoughts = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "xyz"}
    assert messages_of([thoughts, call(0), output(0, [{"type": "input_text", "text": "20"}])]) == [
        {"role": "assistant", "content": None, "tool_calls": [asking(0)]},
        {"role": "tool", "tool_call_id": "call_0", "content": "20"},
    ]


def test_custom_calls_are_chats_custom_calls() -> None:
    given = [
        {"type": "custom_tool_call", "call_id": "c", "name": "sql", "input": "select 1"},
        {"type": "custom_tool_call_output", "call_id": "c", "output": "1"},
    ]
    assert messages_of(given) == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "sql", "input": "select 1"}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "1"},
    ]


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ([{"type": "message", "content": "hi"}], "input[0].role"),
        ([{"role": "tool", "content": "hi"}], "input[0].role"),
        ([{"role": "user"}], "input[0].content"),
        ([{"role": "user", "content": [5]}], "input[0].content[0].type"),
        (user({"type": "input_text"}), "input[0].content[0].text"),
        (user({"type": "input_image", "file_id": "file-1"}), "input[0].content[0]"),
        (user({"type": "input_file", "file_url": "https://x"}), "input[0].content[0].file_url"),
        (user({"type": "input_file"}), "input[0].content[0].file_data"),
        (user({"type": "input_audio"}), "input[0].content[0].input_audio"),
        (user({"type": "input_video"}), "input[0].content[0].type"),
        ([{"role": "system", "content": [{"type": "input_image", "image_url": "x"}]}], "input[0].content[0].type"),
        ([call(0), output(0, [{"type": "input_image", "file_id": "x"}])], "input[1].output[0]"),
        ([{"type": "compaction", "encrypted_content": "x"}], "input[0].type"),
        ([{"type": "mcp_approval_request", "id": "x"}], "input[0].type"),
        ([{"type": 5}], "input[0].type"),
        ([output(0)], "input[0]"),
        ([{"type": "function_call", "call_id": "c", "name": "f"}], "input[0].arguments"),
        ([{"type": "item_reference"}], "input[0].id"),
        ([{}], "input[0].type"),
        ([{"type": "computer_call_output"}], "input[0].type"),
    ],
)
def test_what_no_chat_message_can_say_is_named_by_its_path(given: Any, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        messages_of(given)
    assert caught.value.param == param


def test_fields_of_other_names_are_translated() -> None:
    schema = {"type": "object"}
    assert moved(
        max_output_tokens=64,
        reasoning={"effort": "low", "summary": "auto"},
        text={"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True}, "verbosity": "low"},
    ) == {
        "max_completion_tokens": 64,
        "reasoning_effort": "low",
        "verbosity": "low",
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}},
    }
    assert moved(text={"format": {"type": "text"}}) == {}
    assert moved(text={"format": {"type": "json_object"}}) == {"response_format": {"type": "json_object"}}


def test_fields_that_chat_shares_and_fields_that_no_one_knows_go_along() -> None:
    shared = {"temperature": 0.5, "top_p": 0.9, "metadata": {"a": "b"}, "user": "u", "safety_identifier": "s"}
    shared |= {"prompt_cache_key": "k", "service_tier": "flex", "seed": 3, "from_the_future": {"x": [1]}}
    assert moved(**shared) == shared


def test_what_is_this_proxys_own_stays_here() -> None:
    own = {"store": True, "truncation": "auto", "include": ["reasoning.encrypted_content"], "max_tool_calls": 3}
    assert moved(**own, previous_response_id=None, background=False) == {}


def test_a_stream_asks_for_its_usage() -> None:
    assert moved(stream=True, stream_options={"include_obfuscation": False}) == {
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_instructions_come_first() -> None:
    given = [{"role": "developer", "content": "d"}, {"role": "user", "content": "u"}]
    assert [m["role"] for m in chat(input=given, instructions="i")["messages"]] == ["system", "developer", "user"]


def test_tools_and_their_choice_go_one_level_deeper() -> None:
    function = {"type": "function", "name": "f", "parameters": {}, "strict": None, "defer_loading": True}
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: /a/"}
    sql = {"type": "custom", "name": "sql", "format": grammar}
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f"}]}
    assert moved(tools=[function, sql], tool_choice=choice, parallel_tool_calls=False) == {
        "tools": [
            {"type": "function", "function": {"name": "f", "parameters": {}}},
            {
                "type": "custom",
                "custom": {
                    "name": "sql",
                    "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: /a/"}},
                },
            },
        ],
        "tool_choice": {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "f"}}]},
        },
        "parallel_tool_calls": False,
    }
    assert moved(tools=[function], tool_choice={"type": "function", "name": "f"})["tool_choice"] == {
        "type": "function",
        "function": {"name": "f"},
    }
    assert moved(tools=[], tool_choice="auto", parallel_tool_calls=True) == {}
    assert moved(tool_choice="required") == {"tool_choice": "required"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tools": [{"type": kind}]}, "tools[0].type")
        for kind in ("file_search", "computer_use_preview", "mcp", "code_interpreter", "local_shell", "apply_patch")
    ]
    + [
        ({"tools": [{"type": "function", "function": {"name": "nested"}}]}, "tools[0].name"),
        ({"tools": ["f"]}, "tools[0]"),
        ({"tools": [{"type": ["function"]}]}, "tools[0]"),
        ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}}, "tool_choice"),
        (
            {
                "tools": [{"type": "web_search"}],
                "tool_choice": {"type": "allowed_tools", "tools": [{"type": "web_search"}]},
            },
            "tool_choice",
        ),
        ({"tool_choice": {"type": "web_search_preview"}}, "tool_choice"),
        ({"tool_choice": 5}, "tool_choice"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": "json"}}, "text.format.type"),
        ({"text": "json"}, "text"),
        ({"instructions": ["a"]}, "instructions"),
        ({"store": "no"}, "store"),
        ({"reasoning": "high"}, "reasoning"),
        ({"previous_response_id": 5}, "previous_response_id"),
        ({"context_management": [{"type": "compaction"}]}, "context_management"),
        ({"input": []}, "input"),
    ],
)
def test_what_cannot_be_asked_is_named(body: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        chat(**body)
    assert caught.value.param == param


def test_a_response_repeats_what_was_asked_and_claims_no_more() -> None:
    assert echo({"model": "m", "input": "hi"})["temperature"] is None
    found = echo(
        {"temperature": 0.5, "text": {"verbosity": "low"}, "reasoning": {"effort": "low"}, "truncation": "auto"}
    )
    assert (found["temperature"], found["truncation"]) == (0.5, "disabled")
    assert found["text"] == {"verbosity": "low", "format": {"type": "text"}}
    assert found["reasoning"] == {"effort": "low", "summary": None}


def test_an_items_id_tells_its_response() -> None:
    new_id = new_ids(RESPONSE)
    for kind, prefix in (("message", "msg"), ("function_call", "fc"), ("reasoning", "rs")):
        assert re.fullmatch(prefix + r"_[0-9a-f]{52}", new_id(kind))
        assert owner_of(new_id(kind)) == RESPONSE
    assert owner_of("nonsense") != RESPONSE


def test_what_results_show_stands_behind_all_of_them() -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "original"}
    file = {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,BB"}
    items = [call(0), call(1), output(0, [image]), output(1, [{"type": "input_text", "text": "two"}, file])]
    called, first, second, shown = messages_of(items)
    assert len(called["tool_calls"]) == 2
    assert (first["content"], second["content"]) == ("The result is in the next message.", "two")
    assert [p["type"] for p in shown["content"]] == ["text", "image_url", "text", "file"]
    assert "call_0" in shown["content"][0]["text"]
    assert shown["content"][1]["image_url"] == {"url": "data:image/png;base64,AA", "detail": "high"}
    assert [m["role"] for m in messages_of([*items, {"role": "user", "content": "and?"}])][-2:] == ["user", "user"]
    assert messages_of([*items, call(2)])[-1]["tool_calls"][0]["id"] == "call_2"


def test_reasoning_goes_back_with_the_calls_that_it_led_to() -> None:
    def thought(text: str) -> dict[str, Any]:
        return {"type": "reasoning", "content": [{"type": "reasoning_text", "text": text}], "encrypted_content": "x"}

    said = {"role": "assistant", "content": "Looking."}
    found = messages_of([thought("hm"), said, call(0), output(0, "x"), thought("so"), said, *user(), thought("?")])
    assert found[0] == {"role": "assistant", "content": "Looking.", "tool_calls": found[0]["tool_calls"]} | {
        "reasoning_content": "hm"
    }
    assert all("reasoning_content" not in message for message in found[1:])
    several = messages_of([thought("a"), thought("b"), call(0), thought("c"), call(1), said, thought("d"), call(2)])
    assert [m["reasoning_content"] for m in several] == ["abcd"]
    odd = {"type": "reasoning", "content": [5, {"text": None}], "summary": [{"type": "summary_text", "text": "s"}]}
    assert messages_of([odd, call(0)])[0]["tool_calls"]


def test_an_item_costs_no_copy_of_those_before_it() -> None:
    transcript, kept = Transcript(), None
    for n in range(3):
        transcript.add({"type": "message", "role": "user", "content": str(n)}, "input")
        transcript.add(call(n), "input")
        transcript.add(output(n), "input")
        assert kept is None or kept is transcript.messages
        kept = transcript.messages
    assert len(transcript.messages) == 9


def test_calls_in_forms_of_their_own_are_calls() -> None:
    items = [
        {
            "type": "local_shell_call",
            "call_id": "a",
            "action": {"command": ["ls"]},
            "status": "completed",
        },
        {"type": "local_shell_call_output", "call_id": "a", "output": "x"},
        {"type": "shell_call_output", "call_id": "a", "output": [{"stdout": "y"}]},
    ]
    called, result, other = messages_of(items)
    assert called["tool_calls"][0]["function"] == {
        "name": "local_shell",
        "arguments": '{"action":{"command":["ls"]}}',
    }
    assert (result["content"], other["content"]) == ("x", '[{"stdout":"y"}]')


def test_hosted_tools_and_items_that_a_model_can_do_without_are_left_out_by_name() -> None:
    function = {"type": "function", "name": "f", "parameters": {}}
    tools, dropped = tools_of({"tools": [{"type": "web_search"}, function, {"type": "Of Tomorrow\r\nx: y"}]})
    assert [t["function"]["name"] for t in tools["tools"]] == ["f"]
    assert dropped == ["web_search", "other"]
    assert tools_of({"tools": [{"type": "web_search"}], "tool_choice": "auto"}) == ({}, ["web_search"])
    transcript = Transcript()
    given = [{"type": "web_search_call", "id": "ws_1", "action": {}}, {"type": "of_tomorrow"}, *user()]
    for n, item in enumerate(listed(given, new_ids(RESPONSE))):
        transcript.add(item, f"input[{n}]")
    assert transcript.dropped == ["web_search_call", "of_tomorrow"]
    assert len(transcript.messages) == 1
