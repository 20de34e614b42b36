"""Paid models asked apart from any request: what one said, and what that cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson

from router.contracts.records import Usage
from router.errors import UpstreamError
from router.policy import Policy
from router.pricing import cost_usd, usage_from_openai
from router.tiers import OPENAI_URL, Backends
from router.upstream.assembly import assembled
from router.upstream.base import Backend, Reply, Waited
from router.upstream.faults import surely_unpaid
from router.upstream.wires import Wires

__all__ = ["Backend", "Completion", "Models", "completion", "output_limit", "surely_unpaid", "teacher_of"]


@dataclass(frozen=True, slots=True)
class Completion:
    """One chat completion. ``usage`` and ``usd`` are None where the model did not tell its tokens, ``finish_reason``
    where it is not whole."""

    message: dict[str, Any]
    finish_reason: str | None
    usage: Usage | None
    usd: Decimal | None


class Models:
    """Asks models, each request once: who asks again pays again. Build it inside a running event loop."""

    def __init__(self) -> None:
        self._wires = Wires()

    async def ask(self, backend: Backend, body: Mapping[str, Any]) -> Completion:
        """Raises as ``Upstream`` says, and UpstreamError for what is no chat completion."""
        asked = {**body, "model": backend.model}
        return completion(backend, await self._wires.to(backend).complete(backend, asked, Waited()))

    async def close(self) -> None:
        await self._wires.close()


def completion(backend: Backend, reply: Reply) -> Completion:
    """Reads a reply of a backend with a price. Raises UpstreamError where it is no chat completion."""
    assert backend.price is not None
    try:
        found = orjson.loads(reply.body)
        choice, told = found["choices"][0], found.get("usage")
        usage = usage_from_openai(told) if told else None
        said = assembled(choice)
        return Completion(
            message=dict(choice["message"]),
            finish_reason=said.finish_reason if said.whole and reply.whole else None,
            usage=usage,
            usd=None if usage is None else cost_usd(usage, backend.price),
        )
    except (orjson.JSONDecodeError, LookupError, TypeError, ValueError, AttributeError) as e:
        raise UpstreamError(f"{backend.label} answered with something that is no chat completion") from e


def teacher_of(policy: Policy, env: Mapping[str, str]) -> Backend:
    """The policy's first teacher; its key comes from ``env``. Raises PolicyError where nobody knows its price."""
    return Backends(policy, env).teachers[0]


def output_limit(backend: Backend, tokens: int) -> dict[str, int]:
    """The field that holds an answer to so many tokens: OpenAI's newer models refuse the older one."""
    return {"max_completion_tokens" if backend.url == OPENAI_URL else "max_tokens": tokens}
