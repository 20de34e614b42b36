"""The label teacher's calls, one by one: who is asked, what for, and how many at once."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from distiller.data.rows import DatasetRow
from distiller.labels.filters import LabelFault
from distiller.logs.terms import told_rights
from distiller.payments import CallFailure, PaidCalls, PurseEmpty
from router.backends.base import Backend
from router.backends.client import BackendClient
from router.backends.roster import provider
from router.contracts.records import Rights
from router.errors import PolicyError, UpstreamError, UpstreamRateLimited, UpstreamRefused, UpstreamTimeout
from router.policy.policy import Policy
from router.price_map import litellm_price
from router.wire.chat import Dialect

LEAST_ROOM_TOKENS = 1024
"""Room for what is short: models that think before they speak need some for that."""
BYTES_PER_TOKEN = 2
"""Fewer than in any usual text, so that answers have room enough."""
FEW_FAILURES, MOST_FAILED, NONE_ANSWERED = 4, 0.2, 25
"""Failed calls, and their share of all, beyond which it is the label teacher that is broken; and calls turned away,
each for itself, beyond which it takes none of them."""

LISTING_SECONDS = 10.0

Told = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class LabelCall:
    """``name`` is the same for the same prompt, asked of the same model: such a call is paid once, in whichever round.
    ``room_tokens``: how long an answer may be where the request does not say."""

    name: str
    row: DatasetRow
    body: Mapping[str, Any]
    room_tokens: int


@dataclass(frozen=True, slots=True)
class CallFailures:
    """Why asking ended before all was asked (``stopped``), and what became of calls that have no answer, by name."""

    stopped: str
    faults: Mapping[str, LabelFault]


def label_backend(policy: Policy, env: Mapping[str, str]) -> Backend:
    """The policy's label teacher. Raises PolicyError where nobody knows its price, or it has no key."""
    declared = policy.distil.labels_from
    assert declared is not None
    price = declared.usd_per_million or litellm_price(declared.model)
    if price is None:
        raise PolicyError(
            f"policy {policy.name}: litellm's price map has no {declared.model!r}; set "
            "distil.labels_from.usd_per_million: {input: ..., output: ...} (0 and 0 for a server of your own)"
        )
    backend = provider(declared, price, env)
    if backend.lacks_key:
        raise PolicyError(f"policy {policy.name}: the environment has no API key for {backend.label}")
    return backend


def call_of(row: DatasetRow, backend: Backend) -> LabelCall:
    """What the label teacher is asked in the place of the served one: the same prompt, with what shapes the answer."""
    body = {**row.options, "messages": row.messages}
    asked = orjson.dumps([backend.name, body], option=orjson.OPT_SORT_KEYS)
    name = f"label-{hashlib.blake2b(asked, digest_size=16).hexdigest()}"
    return LabelCall(name, row, body, max(LEAST_ROOM_TOKENS, 2 * len(row.answer.encode()) // BYTES_PER_TOKEN))


async def listed_rights(models: BackendClient, backend: Backend) -> tuple[Rights, str] | None:
    """What the label teacher's own server says of its answers' rights, and in which field (as OpenRouter and NanoGPT
    do); None where it says nothing."""
    if backend.url is None or backend.dialect is not Dialect.OPENAI:
        return None
    try:
        told = orjson.loads(await models.listed(replace(backend, timeout_seconds=LISTING_SECONDS)))
        data = told["data"]
        return next((told_rights(one) for one in data if one["id"] == backend.model), None)
    except (UpstreamError, UpstreamRefused, orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
        return None  # who lists nothing, or not so, says nothing of rights


async def ask_each(
    paid: PaidCalls, backend: Backend, calls: Sequence[LabelCall], workers: int, told: Told
) -> CallFailures:
    """Has all answered, ``workers`` at once; the journal has what was said. One that fails costs one row; where too
    many do, no more are asked. What a server turns away for what it says is no failure of the server's."""
    queue, faults, stopped = deque(calls), dict[str, LabelFault](), ""
    asked = broken = answered = 0

    async def worker() -> None:
        nonlocal asked, broken, answered, stopped
        while queue and not stopped:
            call = queue.popleft()
            asked += 1
            try:
                await paid.ask(call.name, backend, call.body, call.room_tokens, of=call.row.request_id)
                answered += 1
            except PurseEmpty:
                stopped = stopped or "the budget is spent"
            except CallFailure as e:
                faults[call.name] = fault_of(e)
                broken += faults[call.name] in (LabelFault.FAILED, LabelFault.STALLED, LabelFault.LIMITED)
                none = not answered and len(faults) >= NONE_ANSWERED
                if none or broken > max(FEW_FAILURES, MOST_FAILED * asked):
                    broken = len(faults) if none else broken
                    stopped = stopped or f"{broken} of {asked} calls failed: {paid.last_error}"
            told(asked, len(calls))

    await asyncio.gather(*(worker() for _ in range(min(workers, len(calls)))))
    return CallFailures(stopped, faults)


def fault_of(failure: CallFailure) -> LabelFault:
    match failure.__cause__:
        case _ if failure.lost:
            return LabelFault.LOST
        case UpstreamRefused():
            return LabelFault.TURNED_AWAY
        case UpstreamTimeout():
            return LabelFault.STALLED
        case UpstreamRateLimited():
            return LabelFault.LIMITED
        case _:
            return LabelFault.FAILED
