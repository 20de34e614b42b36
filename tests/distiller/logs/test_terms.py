from __future__ import annotations

from typing import Any

import pytest

from distiller.logs.calls import LoggedCall
from distiller.logs.chat import read
from distiller.logs.terms import provider_of, rights_of, told_rights
from router.contracts.records import Rights


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("gpt-5", "OpenAI"), ("openai/gpt-6.1-sol", "OpenAI"), ("azure/my-deployment", "OpenAI"), ("o3-mini", "OpenAI"),
        ("openrouter/openai/gpt-5", "OpenAI"), ("claude-opus-5.5", "Anthropic"), ("Gemini-1.5-pro", "Google"),
        ("bedrock/anthropic.claude-opus-5.5", "Anthropic"), ("xai/grok-5", "xAI"),
        ("qwen3-32b", None), ("openai/gpt-oss-120b", None), ("mistral/mistral-large", None), ("unnamed", None),
        ("", None),
    ],
)  # fmt: skip
def test_a_model_s_name_tells_whose_terms_hold(model: str, provider: str | None) -> None:
    assert provider_of(model) == provider
    assert rights_of(model) is (Rights.FORBIDDEN if provider else Rights.UNKNOWN)


ALLOWED, FORBIDDEN = Rights.ALLOWED, Rights.FORBIDDEN


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"is_trainable_text": True}, (ALLOWED, "is_trainable_text")),
        ({"is_trainable_text": False}, (FORBIDDEN, "is_trainable_text")),
        ({"is_trainable_text": None}, None),
        ({"distillable": "true"}, (ALLOWED, "distillable")),
        ({"distillationPolicy": {"status": "disallowed"}}, (FORBIDDEN, "distillationPolicy")),
        ({"distillationPolicy": '{"status": "allowed"}'}, (ALLOWED, "distillationPolicy")),
        ({"distillationPolicy": {"status": "unknown"}}, None),
        ({"training_rights": "allowed", "distillable": False}, (FORBIDDEN, "distillable")),
        ({"distillable": 1, "training_rights": ["allowed"]}, None),
        ({}, None),
    ],
)
def test_what_a_log_says_of_rights_is_read_and_its_strictest_word_counts(
    said: dict[str, Any], told: tuple[Rights, str] | None
) -> None:
    assert told_rights(said) == told


@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.parametrize("place", ["", "metadata", "response", "model_info"])
def test_wherever_in_a_line_it_stands_but_clients_can_only_forbid(place: str, allowed: bool) -> None:
    flag = {"is_trainable_text": allowed}
    response = {"choices": [{"message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}]}
    line: dict[str, Any] = {
        "model": "qwen/qwen3",
        "messages": [{"role": "user", "content": "so?"}],
        "response": response,
    }
    if place:
        line[place] = {**line.get(place, {}), **flag}
    found = read({**line, **({} if place else flag)})
    assert isinstance(found, LoggedCall)
    told = (ALLOWED if allowed else FORBIDDEN, "is_trainable_text")
    assert found.rights == (None if allowed and place == "metadata" else told)


def test_a_flag_does_not_lift_what_a_provider_s_terms_forbid() -> None:
    assert rights_of("openai/gpt-5", (ALLOWED, "distillable")) is FORBIDDEN
    assert rights_of("qwen/qwen3-32b", (ALLOWED, "distillable")) is ALLOWED
    assert rights_of("qwen/qwen3-32b", (FORBIDDEN, "distillable")) is FORBIDDEN
