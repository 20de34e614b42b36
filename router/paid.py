"""What a paid model said apart from any client's request, and what that cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

import orjson

from router.contracts.decision import Tier
from router.contracts.records import Usage
from router.errors import UpstreamError
from router.limits import Breakers, CircuitBreaker
from router.policy import Policy
from router.pricing import cost_usd, usage_from_openai
from router.tiers import OPENAI_URL, Backends, Retries, Tiers
from router.upstream.assembly import assembled
from router.upstream.base import Backend, Reply, Waited
from router.upstream.faults import surely_unpaid
from router.upstream.wires import Wires

__all__ = ["Backend", "Completion", "Tiers", "asked", "careful", "output_limit", "surely_unpaid", "teacher_of"]


@dataclass(frozen=True, slots=True)
class Completion:
    """One chat completion. ``usage`` and ``usd`` are None where the model did not tell its tokens, ``finish_reason``
    where it is not whole."""

    message: dict[str, Any]
    finish_reason: str | None
    usage: Usage | None
    usd: Decimal | None


def careful() -> Tiers:
    """Asks models where nobody waits: nothing is paid twice, and no circuit opens, since there is nobody else to ask.
    Build it inside a running event loop, and close it."""
    most, patience = {Tier.TEACHER: 3}, {Tier.TEACHER: 60.0}
    retries = Retries(most, patience, base_seconds=0.25, cap_seconds=30.0, unpaid=True)
    return Tiers(Wires(), Breakers(partial(CircuitBreaker, share=math.inf)), retries)


async def asked(models: Tiers, backend: Backend, body: Mapping[str, Any]) -> Completion:
    """Raises as ``Upstream`` says, and UpstreamError for what is no chat completion."""
    return _completion(backend, await models.whole(backend, {**body, "model": backend.model}, Waited()))


def _completion(backend: Backend, reply: Reply) -> Completion:
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
