from __future__ import annotations

import pytest

from distiller.logs.terms import provider_of, rights_of
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
