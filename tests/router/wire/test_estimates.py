"""What an answer is estimated to cost that does not tell it: by all that its model wrote, wherever that stands."""

from __future__ import annotations

from typing import Any

import pytest

from router.wire.assembly import Assembly, assembled
from router.wire.estimates import estimated_usage, said_in

TEXT = "word " * 800
ARGUMENTS = '{"a": "' + TEXT + '"}'
MESSAGES: dict[str, dict[str, Any]] = {
    "content": {"content": TEXT},
    "content in parts": {"content": [{"type": "text", "text": TEXT}]},
    "refusal": {"content": None, "refusal": TEXT},
    "deepseek": {"content": "a", "reasoning_content": TEXT},
    "openrouter": {"content": "a", "reasoning": TEXT, "reasoning_details": [{"type": "reasoning.text", "text": TEXT}]},
    "openrouter, details alone": {"content": "a", "reasoning_details": [{"type": "reasoning.text", "text": TEXT}]},
    "openrouter, a summary": {"content": "a", "reasoning_details": [{"type": "reasoning.summary", "summary": TEXT}]},
    "litellm": {"content": "a", "thinking_blocks": [{"type": "thinking", "thinking": TEXT, "signature": "x" * 9000}]},
    "litellm, a field of its own": {"content": "a", "provider_specific_fields": {"reasoning_content": TEXT}},
    "mistral": {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": TEXT}]}]},
    "ollama": {"content": "a", "thinking": TEXT},
    "openai, sound": {"content": None, "audio": {"id": "a", "data": "QUJD" * 9000, "transcript": TEXT}},
    "a call": {"content": None, "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": ARGUMENTS}}]},
    "an older call": {"content": None, "function_call": {"name": "f", "arguments": ARGUMENTS}},
    "a custom call": {
        "content": None,
        "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "f", "input": TEXT}}],
    },
}


@pytest.mark.parametrize("name", MESSAGES)
def test_all_that_a_model_wrote_is_counted_once_whole_or_in_pieces(name: str) -> None:
    message = MESSAGES[name]
    streamed = Assembly()
    streamed.add_choice({"index": 0, "delta": {"role": "assistant", **message}})
    streamed.add_choice({"index": 0, "delta": {}, "finish_reason": "stop"})
    for found in (assembled({"message": message}).message, streamed.message):
        tokens = estimated_usage(10, [said_in(found)]).output_tokens
        assert 1000 <= tokens <= 1010


def test_pieces_of_what_was_said_aloud_add_up() -> None:
    found = Assembly()
    for n in range(800):
        found.add_choice({"index": 0, "delta": {"audio": {"id": "a", "data": "QUJD", "transcript": f"word {n} "}}})
    assert said_in(found.message).split() == [part for n in range(800) for part in ("word", str(n))]


@pytest.mark.parametrize(
    "odd",
    [
        {"content": 7, "tool_calls": "x", "reasoning_details": [None, 3, {"text": 5}], "audio": []},
        {"tool_calls": [None, {}, {"function": None}, {"function": {"arguments": 5}}], "provider_specific_fields": [1]},
        {},
    ],
)
def test_what_is_no_text_says_nothing(odd: dict[str, Any]) -> None:
    assert said_in(odd) == ""


def test_each_choice_of_an_answer_is_counted() -> None:
    assert estimated_usage(10, [TEXT] * 50).output_tokens == 50_000
    assert estimated_usage(10, [TEXT], 7).output_tokens == 7
