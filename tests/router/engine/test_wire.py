"""What the embedded engine makes of a request's fields: it does what they ask, or says that it does not."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from router.engine.generation import Sampling
from router.engine.wire import Chat, parse
from router.errors import BadRequest

MESSAGES = [{"role": "user", "content": "hello"}]


def asked(**fields: Any) -> Chat:
    return parse(orjson.dumps({"model": "base", "messages": MESSAGES, **fields}))


def test_every_field_that_shapes_an_answer_is_read() -> None:
    chat = asked(
        temperature=0.5, top_p=0.9, presence_penalty=1, frequency_penalty=-0.5, seed=-1, n=3, stop="x",
        max_tokens=9, max_completion_tokens=5, logprobs=True, top_logprobs=20,
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array"}}},
    )  # fmt: skip
    assert chat.sampling == Sampling(0.5, 0.9, 1.0, -0.5, (1 << 63) - 1, 20)
    assert (chat.n, chat.stops, chat.max_tokens, chat.logprobs, chat.schema) == (3, ("x",), 5, True, {"type": "array"})


@pytest.mark.parametrize(("priority", "yields"), [(None, False), (0, False), (-3, False), (1, True), (7, True)])
def test_a_priority_above_zero_yields_as_vllms_does(priority: int | None, yields: bool) -> None:
    assert asked(priority=priority).yields is yields


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "u", "metadata": {"a": "b"}, "store": True, "service_tier": "flex", "prompt_cache_key": "k"},
        {"tools": None, "tool_choice": None, "n": None, "logit_bias": {}, "modalities": ["text"]},
        {"response_format": {"type": "text"}, "parallel_tool_calls": True, "verbosity": "medium"},
    ],
)
def test_what_says_nothing_about_the_answer_is_let_through(fields: dict[str, Any]) -> None:
    assert asked(**fields) == asked()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"type": "custom", "custom": {"name": "f"}}]),
        ("functions", [{"name": "f"}]),
        ("tool_choice", "sometimes"),
        ("logit_bias", {"50256": -100}),
        ("modalities", ["text", "audio"]),
        ("reasoning_effort", "high"),
        ("web_search_options", {"search_context_size": "low"}),
        ("a_field_of_tomorrow", False),
        ("n", 17),
        ("priority", 0.5),
        ("priority", "low"),
        ("n", True),
        ("top_logprobs", 21),
        ("presence_penalty", 2.1),
        ("frequency_penalty", "much"),
        ("seed", 1.5),
        ("stop", [""]),
        ("response_format", {"type": "xml"}),
        ("response_format", {"type": "json_schema", "json_schema": {"name": "x"}}),
        ("response_format", "json"),
    ],
)
def test_what_it_does_not_do_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(BadRequest) as refused:
        asked(logprobs=True, **{field: value})
    assert refused.value.param == field


@pytest.mark.parametrize(
    "message",
    [
        {"role": "function", "name": "f", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "a"}]},
        {"role": "user", "content": "x", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "a", "type": "custom", "custom": {"name": "f"}}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": {}}}]},
        {"role": "assistant", "content": None, "function_call": {"name": "f"}},
        {"role": "assistant", "content": None, "audio": {"id": "a"}},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "x"}}]},
        {"role": "user", "content": [{"type": "file", "file": {"file_id": "x"}}]},
    ],
)
def test_messages_that_no_text_models_template_shows_are_refused(message: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as refused:
        parse(orjson.dumps({"model": "base", "messages": [*MESSAGES, message]}))
    assert str(refused.value.param).startswith("messages[1]")


def test_an_answer_echoed_back_is_read_by_its_text() -> None:
    said = {"role": "assistant", "content": "hi", "refusal": None, "tool_calls": None, "audio": None, "annotations": []}
    chat = parse(orjson.dumps({"model": "base", "messages": [{"role": "developer", "content": "Be brief."}, said]}))
    assert [(m["role"], m["content"]) for m in chat.messages] == [("system", "Be brief."), ("assistant", "hi")]
