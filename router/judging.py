"""The judges of a policy with all that they ask: language models over the proxy's own ways to backends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson

from router.contracts.judges import Llm
from router.errors import JudgeError, PolicyError, UpstreamError, UpstreamRefused
from router.policy import Policy
from router.pricing import cost_usd, litellm_price, usage_from_openai
from router.scoring.judges.judge import Encodes, Judges, specs
from router.scoring.judges.llm import Said
from router.scoring.judges.pair import text
from router.tiers import Tiers, provider
from router.upstream.base import Backend, Waited
from router.upstream.litellm_wire import LiteLLMWire
from router.upstream.openai_wire import OpenAIWire


def judges_of(
    policy: Policy, env: Mapping[str, str], tiers: Tiers, encoder: Callable[[], Encodes | None] = lambda: None
) -> Judges:
    """The policy's judges. Keys come from ``env``, by the names that the policy gives.

    Raises:
        PolicyError: nobody knows what a model costs, or a callable cannot be imported.
    """
    backends = _backends(policy, env)

    async def complete(judge: Llm, body: Mapping[str, Any]) -> Said:
        return await _ask(tiers, backends[judge.label], body)

    return Judges(policy.judge, complete=complete, encoder=encoder)


@asynccontextmanager
async def judges_alone(
    policy: Policy, env: Mapping[str, str], encoder: Callable[[], Encodes | None] = lambda: None
) -> AsyncIterator[Judges]:
    """The same where no proxy runs: with connections of their own, closed at the end."""
    tiers = Tiers(OpenAIWire(), LiteLLMWire())
    try:
        yield judges_of(policy, env, tiers, encoder)
    finally:
        await tiers.close()


def check_judges(policy: Policy, env: Mapping[str, str]) -> None:
    """Raises PolicyError as ``judges_of`` would."""
    _backends(policy, env)
    Judges(policy.judge)


def _backends(policy: Policy, env: Mapping[str, str]) -> dict[str, Backend]:
    """By the judge's label."""
    return {judge.label: _backend(policy, judge, env) for judge in specs(policy.judge) if isinstance(judge, Llm)}


def _backend(policy: Policy, judge: Llm, env: Mapping[str, str]) -> Backend:
    price = judge.usd_per_million or litellm_price(judge.model)
    if price is None:
        raise PolicyError(
            f"policy {policy.name}: litellm's price map has no {judge.model!r}; "
            "set the judge's usd_per_million: {input: ..., output: ...}"
        )
    return provider(judge, price, env)


async def _ask(tiers: Tiers, backend: Backend, body: Mapping[str, Any]) -> Said:
    """Raises JudgeError where there is no answer; an answer that is no chat completion may have cost something,
    but says not what."""
    try:
        reply = await tiers.whole(backend, {**body, "model": backend.model}, Waited())
        found = orjson.loads(reply.body)
        said = text(found["choices"][0]["message"])
        usage = usage_from_openai(found.get("usage") or {})
    except (UpstreamError, UpstreamRefused) as e:
        raise JudgeError(f"the judge was not answered: {e}") from e
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError) as e:
        raise JudgeError(f"{backend.label} answered the judge with something that is no chat completion") from e
    assert backend.price is not None  # _backend saw to it
    return Said(said, cost_usd(usage, backend.price))
