"""A server that litellm asks, beside the keys of providers that it must not use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from router.backends.base import Backend, WaitingTime
from router.backends.litellm import LiteLLMWire
from router.contracts.decision import Tier
from tests.fakes import FakeUpstream, served

MESSAGES: Any = [{"role": "user", "content": "hi"}]
PLAIN: dict[str, Any] = {"model": "x", "messages": MESSAGES}


@pytest.fixture(scope="module")
def upstream() -> Iterator[FakeUpstream]:
    found = FakeUpstream("big")
    with served(found) as found.url:
        yield found


@pytest.fixture
def backend(upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch) -> Backend:
    upstream.always()
    upstream.seen.clear()
    monkeypatch.setenv("HOSTED_VLLM_API_BASE", f"{upstream.url}/v1")
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "AZURE_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.setenv(name, "sk-of-another-provider")
    for name in ("ANTHROPIC_API_BASE", "GEMINI_API_BASE"):
        monkeypatch.setenv(name, upstream.url)
    return at("hosted_vllm/big")


def at(model: str, **more: Any) -> Backend:
    return Backend(Tier.TEACHER, model, model, None, **({"timeout_seconds": 20, "key": "sk-secret"} | more))


async def whole(backend: Backend, body: dict[str, Any]) -> Any:
    return orjson.loads((await LiteLLMWire().complete(backend, body, WaitingTime())).body)
