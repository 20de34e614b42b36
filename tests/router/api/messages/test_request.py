"""A Messages request as a chat request: what becomes what, and what is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router.api.messages.request import chat_of, wants_thinking
from router.errors import BadRequest

USER = {"role": "user", "content": "hi"}
LEAST: dict[str, Any] = {"model": "claude", "max_tokens": 10, "messages": [USER]}
PNG = {"type": "base64", "media_type": "image/png", "data": "aGk="}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
DEEP: list[Any] = json.loads("[" * 500 + "]" * 500)
CALL = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": "sky"}}


def text(value: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": value, **more}


def result(content: Any = None, **more: Any) -> dict[str, Any]:
    given = {} if content is None else {"content": content}
    return {"type": "tool_result", "tool_use_id": "toolu_1", **given, **more}


def chat(**fields: Any) -> dict[str, Any]:
    return chat_of(LEAST | fields)


def turns(*messages: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = chat(messages=list(messages))["messages"]
    return found


def user(*blocks: Any) -> list[dict[str, Any]]:
    return turns({"role": "user", "content": list(blocks)})


def test_the_least_request_becomes_the_least_chat_request() -> None:
    assert chat_of(LEAST) == {"model": "claude", "messages": [USER], "max_completion_tokens": 10}


@pytest.mark.parametrize(
    ("given", "becomes"),
    [
        ({"temperature": 0.5, "top_p": 0.9}, {"temperature": 0.5, "top_p": 0.9}),
        ({"stop_sequences": ["END"]}, {"stop": ["END"]}),
        ({"stop_sequences": []}, {}),
        ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
        ({"stream": False}, {}),
        ({"top_k": 5, "cache_control": {"type": "ephemeral"}, "context_management": {"edits": []}}, {}),
        ({"mcp_servers": [], "container": None}, {}),
        ({"frobnicate": {"x": 1}}, {"frobnicate": {"x": 1}}),
        ({"metadata": {"user_id": "u-1"}}, {"user": "u-1"}),
        ({"metadata": {"user_id": None, "task": "legal"}}, {"metadata": {"task": "legal"}}),
        ({"metadata": {"user_id": "u" * 64}}, {"user": "u" * 64}),
        ({"metadata": {"user_id": "u" * 65}}, {"user": "u-f20e249d15fa4b9f44ba21d154f62e1e"}),
        ({"service_tier": "auto"}, {}),
        ({"service_tier": "standard_only"}, {"service_tier": "default"}),
        ({"thinking": {"type": "disabled"}}, {}),
        ({"thinking": {"type": "adaptive"}}, {}),
        ({"thinking": {"type": "enabled", "budget_tokens": 4096}}, {"reasoning_effort": "low"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 4097}}, {"reasoning_effort": "medium"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 30000}}, {"reasoning_effort": "high"}),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, {"reasoning_effort": "high"}),
        ({"output_config": {}}, {}),
        ({"tools": []}, {}),
        ({"tool_choice": {"type": "auto"}}, {"tool_choice": "auto"}),
        ({"tool_choice": {"type": "any"}}, {"tool_choice": "required"}),
        ({"tool_choice": {"type": "none"}}, {"tool_choice": "none"}),
        (
            {"tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True}},
            {"tool_choice": {"type": "function", "function": {"name": "f"}}, "parallel_tool_calls": False},
        ),
    ],
)
def test_fields_become_their_chat_counterparts(given: dict[str, Any], becomes: dict[str, Any]) -> None:
    assert chat(**given) == chat_of(LEAST) | becomes


def test_tools_become_functions() -> None:
    tool = {
        "name": "look",
        "type": "custom",
        "description": "Looks",
        "input_schema": SCHEMA,
        "strict": True,
        "cache_control": {"type": "ephemeral"},
    }
    function = {"name": "look", "description": "Looks", "parameters": SCHEMA, "strict": True}
    assert chat(tools=[tool])["tools"] == [{"type": "function", "function": function}]
    bare = chat(tools=[{"name": "look", "input_schema": {}}])["tools"]
    assert bare == [{"type": "function", "function": {"name": "look", "parameters": {}}}]


@pytest.mark.parametrize("field", ["output_format", "output_config"])
@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        (SCHEMA, True),
        (SCHEMA | {"required": []}, False),
        ({"type": "object", "properties": {}}, False),
        ({"type": "array", "items": SCHEMA}, True),
        ({"anyOf": [SCHEMA, {"type": "object"}]}, False),
        (SCHEMA | {"properties": 5}, False),
    ],
)
def test_a_schema_is_strict_where_openai_would_take_it(field: str, schema: dict[str, Any], strict: bool) -> None:
    form = {"type": "json_schema", "schema": schema}
    given = {field: form if field == "output_format" else {"format": form}}
    described = {"name": "answer", "schema": schema} | ({"strict": True} if strict else {})
    assert chat(**given)["response_format"] == {"type": "json_schema", "json_schema": described}


def test_the_system_prompt_comes_first_without_its_cache_marks() -> None:
    assert chat(system="be kind")["messages"] == [{"role": "system", "content": "be kind"}, USER]
    blocks = [text("one", cache_control={"type": "ephemeral"}), text("two", citations=None)]
    system = {"role": "system", "content": [text("one"), text("two")]}
    assert chat(system=blocks)["messages"] == [system, USER]
    assert chat(system=[text("x-anthropic-billing-header: cch=1;"), text("one")])["messages"][0]["content"] == "one"
    assert chat(system="")["messages"] == chat(system=[])["messages"] == [USER]
    assert turns(USER, {"role": "system", "content": "now in verse"})[1]["role"] == "system"


def test_images_go_by_data_and_by_url() -> None:
    found = user(
        text("what?"), {"type": "image", "source": PNG}, {"type": "image", "source": {"type": "url", "url": "u"}}
    )
    assert found[0]["content"] == [
        text("what?"),
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
        {"type": "image_url", "image_url": {"url": "u"}},
    ]


def test_documents_go_as_text_or_as_a_file() -> None:
    def document(**source: Any) -> Any:
        return user({"type": "document", "title": "T", "context": "C", "source": source})[0]["content"]

    plain = {"type": "text", "media_type": "text/plain", "data": "body"}
    assert document(**plain) == [text("T\nC"), text("body")]
    assert user({"type": "document", "source": plain})[0]["content"] == "body"
    assert document(type="content", content="body") == [text("T\nC"), text("body")]
    inner = [text("x"), {"type": "image", "source": PNG}]
    assert [p["type"] for p in document(type="content", content=inner)] == ["text", "text", "image_url"]
    pdf = {"type": "file", "file": {"filename": "T.pdf", "file_data": "data:application/pdf;base64,aGk="}}
    assert document(type="base64", media_type="application/pdf", data="aGk=") == [text("T\nC"), pdf]


def test_search_results_go_as_text() -> None:
    block = {"type": "search_result", "title": "T", "source": "https://x", "content": [text("a"), text("b")]}
    assert user(block)[0]["content"] == "T\nhttps://x\na\nb"


def test_calls_and_their_results_keep_their_ids_and_order() -> None:
    found = turns(
        USER,
        {"role": "assistant", "content": [text("Let me look."), CALL, CALL | {"id": "toolu_2"}]},
        {
            "role": "user",
            "content": [result("blue"), text("and?"), result([text("a"), text("b")]) | {"tool_use_id": "toolu_2"}],
        },
    )
    calls = [
        {"id": f"toolu_{n}", "type": "function", "function": {"name": "look", "arguments": '{"at":"sky"}'}}
        for n in (1, 2)
    ]
    assert found[1:] == [
        {"role": "assistant", "content": "Let me look.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "toolu_1", "content": "blue"},
        {"role": "tool", "tool_call_id": "toolu_2", "content": [text("a"), text("b")]},
        {"role": "user", "content": "and?"},
    ]


def test_a_turn_of_calls_alone_has_no_content() -> None:
    assert turns(USER, {"role": "assistant", "content": [CALL]}, USER)[1]["content"] is None


@pytest.mark.parametrize(
    ("block", "content"),
    [
        (result(), ""),
        (result([]), ""),
        (result(is_error=True), "Error"),
        (result("no such file", is_error=True), "Error: no such file"),
        (result([text("a"), text("b")], is_error=True), [text("Error: a"), text("b")]),
        (result([{"type": "tool_reference", "tool_name": "look"}]), "Tool found: look"),
    ],
)
def test_results_say_what_came_of_the_call(block: dict[str, Any], content: Any) -> None:
    assert user(block) == [{"role": "tool", "tool_call_id": "toolu_1", "content": content}]


def test_an_image_in_a_result_is_shown_by_the_user() -> None:
    tool, shown = user(result([{"type": "image", "source": PNG}]), text("well?"))
    assert tool == {"role": "tool", "tool_call_id": "toolu_1", "content": "The result is in the next message."}
    assert shown["role"] == "user"
    assert [p.get("text") for p in shown["content"]] == ["From the result of the tool call toolu_1:", None, "well?"]


def test_thinking_of_earlier_turns_goes_along_by_who_made_it() -> None:
    signed = [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "redacted_thinking", "data": "x"}]
    ours = {"type": "thinking", "thinking": "so", "signature": ""}
    assert turns(USER, {"role": "assistant", "content": [*signed, text("hi")]})[1] == {
        "role": "assistant",
        "content": "hi",
        "thinking_blocks": signed,
    }
    assert turns(USER, {"role": "assistant", "content": [ours]})[1] == {
        "role": "assistant",
        "content": "",
        "reasoning_content": "so",
    }


@pytest.mark.parametrize(
    ("thinking", "shown"),
    [
        (None, False),
        ("yes", False),
        ({"type": "disabled"}, False),
        ({"type": "adaptive"}, True),
        ({"type": "enabled", "display": "omitted"}, False),
    ],
)
def test_thinking_is_shown_where_it_was_asked_for(thinking: Any, shown: bool) -> None:
    assert wants_thinking({"thinking": thinking}) is shown


def test_counting_needs_no_limit() -> None:
    asked = {"model": "claude", "messages": [USER]}
    assert chat_of(asked | {"compaction": {"type": "summarize"}}, counting=True) == asked


def at_user(block: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [block]}]}


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"model": None}, "model"),
        *(({"max_tokens": v}, "max_tokens") for v in (None, 0, "5", True, 1.5)),
        *(({"messages": v}, "messages") for v in (None, [], "hi", {})),
        ({"messages": ["hi"]}, "messages.0"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages.0.role"),
        *(
            ({"messages": [{"role": "user", "content": v}]}, "messages.0.content")
            for v in (None, 5, "", [], {"type": "text"})
        ),
        (at_user("hi"), "messages.0.content.0"),
        (at_user([text("hi")]), "messages.0.content.0"),
        (at_user({"text": "hi"}), "messages.0.content.0"),
        (at_user({"type": "hologram"}), "messages.0.content.0"),
        (at_user({"type": "text", "text": 5}), "messages.0.content.0.text"),
        (at_user(CALL), "messages.0.content.0"),
        (at_user({"type": "container_upload", "file_id": "f"}), "messages.0.content.0"),
        (at_user({"type": "image"}), "messages.0.content.0.source"),
        (at_user({"type": "image", "source": {"type": "file", "file_id": "f"}}), "messages.0.content.0.source"),
        (at_user({"type": "image", "source": {"type": "base64"}}), "messages.0.content.0.source.media_type"),
        (at_user({"type": "document", "source": {"type": "url", "url": "u"}}), "messages.0.content.0.source"),
        (
            at_user({"type": "document", "source": {"type": "base64", "media_type": "text/csv"}}),
            "messages.0.content.0.source",
        ),
        (
            at_user({"type": "document", "source": {"type": "content", "content": [CALL]}}),
            "messages.0.content.0.source.content.0",
        ),
        (at_user({"type": "search_result", "content": [{"type": "image"}]}), "messages.0.content.0.content.0"),
        (at_user({"type": "tool_result"}), "messages.0.content.0.tool_use_id"),
        (at_user(result(5)), "messages.0.content.0.content"),
        (at_user(result([result("nested")])), "messages.0.content.0.content.0"),
        ({"messages": [{"role": "assistant", "content": [{"type": "server_tool_use"}]}]}, "messages.0.content.0"),
        ({"messages": [{"role": "assistant", "content": [CALL | {"input": "x"}]}]}, "messages.0.content.0.input"),
        (
            {"messages": [{"role": "assistant", "content": [CALL | {"input": {"a": DEEP}}]}]},
            "messages.0.content.0.input",
        ),
        ({"messages": [{"role": "assistant", "content": [CALL | {"id": ""}]}]}, "messages.0.content.0.id"),
        ({"system": 5}, "system"),
        ({"system": [{"type": "image"}]}, "system.0"),
        ({"stream": "yes"}, "stream"),
        ({"stop_sequences": "END"}, "stop_sequences"),
        ({"stop_sequences": [1]}, "stop_sequences"),
        ({"metadata": []}, "metadata"),
        ({"tools": {}}, "tools"),
        ({"tools": ["look"]}, "tools.0"),
        ({"tools": [{"input_schema": {}}]}, "tools.0.name"),
        ({"tools": [{"name": "look"}]}, "tools.0.input_schema"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools.0.type"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice"),
        ({"thinking": "yes"}, "thinking"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"output_config": "x"}, "output_config"),
        ({"output_config": {"effort": "huge"}}, "output_config.effort"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format"),
        ({"output_format": "json"}, "output_format"),
        ({"mcp_servers": [{"url": "u"}]}, "mcp_servers"),
        ({"container": "c"}, "container"),
        ({"thread": {"type": "create"}}, "thread"),
        ({"compaction": {"type": "summarize"}}, "compaction"),
    ],
)
def test_what_cannot_be_passed_on_is_refused_by_its_path(wrong: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        chat_of(LEAST | wrong)
    assert caught.value.param == param
    assert param in str(caught.value)
