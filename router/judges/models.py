"""The judges of a policy with all that they ask: language models over the proxy's own ways to backends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import orjson

from router.backends.base import Backend, WaitingTime
from router.backends.breakers import ProcessBreakers, ProcessRests
from router.backends.client import BackendClient, Wires, asked
from router.backends.faults import surely_unpaid
from router.backends.roster import provider
from router.contracts.records import Usage
from router.errors import JudgeError, PolicyError, UpstreamError, UpstreamRefused
from router.judges.base import Means, ModelReply, TextEncoder
from router.judges.judge import Judges, specs
from router.judges.pair import text
from router.policy.judges import Llm
from router.policy.policy import Policy
from router.price_map import litellm_price
from router.pricing import cost_usd
from router.wire.ceiling import Dearest


def judges_of(
    policy: Policy,
    env: Mapping[str, str],
    client: BackendClient,
    encoder: Callable[[], TextEncoder | None] = lambda: None,
) -> Judges:
    """The policy's judges. Keys come from ``env``, by the names that the policy gives.

    Raises:
        PolicyError: nobody knows what a model costs, or a callable cannot be imported.
    """
    backends = judge_backends(policy, env)

    async def complete(judge: Llm, body: Mapping[str, Any]) -> ModelReply:
        return await _ask(client, backends[judge.label], body)

    def dearest(judge: Llm, body: Mapping[str, Any]) -> Decimal:
        price = backends[judge.label].price
        return Dearest(body).usd(judge.model, price) if price else Decimal(0)

    return Judges(policy.judge, Means(complete, dearest, encoder))


@asynccontextmanager
async def judges_alone(
    policy: Policy, env: Mapping[str, str], encoder: Callable[[], TextEncoder | None] = lambda: None
) -> AsyncIterator[Judges]:
    """The same where no proxy runs: with connections of their own, closed at the end."""
    client = BackendClient(Wires(), ProcessBreakers(), ProcessRests())
    try:
        yield judges_of(policy, env, client, encoder)
    finally:
        await client.close()


def check_judges(policy: Policy, env: Mapping[str, str]) -> None:
    """Raises PolicyError as ``judges_of`` would."""
    judge_backends(policy, env)
    Judges(policy.judge)


def judge_backends(policy: Policy, env: Mapping[str, str]) -> dict[str, Backend]:
    """The models that judge, by the judge's label. Raises PolicyError where nobody knows what one costs."""
    return {judge.label: _backend(policy, judge, env) for judge in specs(policy.judge) if isinstance(judge, Llm)}


def _backend(policy: Policy, judge: Llm, env: Mapping[str, str]) -> Backend:
    price = judge.usd_per_million or litellm_price(judge.model)
    if price is None:
        raise PolicyError(
            f"policy {policy.name}: litellm's price map has no {judge.model!r}; "
            "set the judge's usd_per_million: {input: ..., output: ...}"
        )
    return provider(judge, price, env)


async def _ask(client: BackendClient, backend: Backend, body: Mapping[str, Any]) -> ModelReply:
    """Raises JudgeError where there is no answer. What may be paid and says not what it cost is estimated."""
    waited = WaitingTime()
    try:
        found = await asked(client, backend, body, waited)
    except (UpstreamError, UpstreamRefused) as e:
        usd = Decimal(0) if surely_unpaid(e) else _estimated_usd(backend, body)
        usd += waited.lost * _estimated_usd(backend, body)
        raise JudgeError(f"the judge was not answered: {e}", usd=usd) from e
    guess = _estimated_usd(backend, body, found.message) if found.usd is None or waited.lost else Decimal(0)
    usd = guess if found.usd is None else found.usd
    return ModelReply(text(found.message), usd + waited.lost * guess, estimated=found.usd is None or waited.lost > 0)


def _estimated_usd(backend: Backend, body: Mapping[str, Any], said: Mapping[str, Any] | None = None) -> Decimal:
    """By four bytes a token."""
    sizes = (len(orjson.dumps(part)) // 4 for part in (body, said or {}))
    usage = Usage(input_tokens=next(sizes), output_tokens=next(sizes), estimated=True)
    return cost_usd(usage, backend.price) if backend.price else Decimal(0)
