"""Tokens to US dollars, and what the teacher alone would have cost. Leaf: contracts and errors only.

Limits, on purpose: long-context surcharges and batch discounts are not modelled; a policy whose teacher has them states
its own price.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from router.contracts.prices import Price
from router.contracts.records import Usage
from router.errors import PolicyError

MILLION, NOTHING = Decimal(1_000_000), Decimal(0)
MOST_TOKENS = 10**9
"""More than that in one answer no model has read or said."""
PRICE_MAP = "model_prices_and_context_window_backup.json"
SNAPSHOT = re.compile(r"(.+)-\d{4}-?\d{2}-?\d{2}")
RETIRED = {"gpt-5.1-2025-11-13": date(2027, 4, 1), "gpt-5.4-nano-2026-03-17": date(2027, 4, 1)}
"""What OpenAI has announced (https://developers.openai.com/api/docs/deprecations) and the map does not tell."""


class _Student(Protocol):
    @property
    def usd_per_million(self) -> Price: ...


class _Teacher(Protocol):
    @property
    def model(self) -> str: ...

    @property
    def usd_per_million(self) -> Price | None: ...

    @property
    def fallbacks(self) -> Sequence[str]: ...


class PricedPolicy(Protocol):
    """A policy, as far as prices care."""

    @property
    def name(self) -> str: ...

    @property
    def student(self) -> _Student: ...

    @property
    def teacher(self) -> _Teacher: ...


@dataclass(frozen=True, slots=True)
class _Listed:
    """A model in litellm's map; tokens that it reads and says at most, and the day on which its provider ends it,
    None where the map does not tell."""

    name: str
    provider: str
    price: Price
    reads: int | None
    says: int | None
    retires: date | None


@cache
def _price_map() -> Mapping[str, _Listed]:
    """litellm's packaged map by model, read without importing litellm (2.5 s)."""
    spec = find_spec("litellm")
    if spec is None or spec.origin is None:
        return {}
    raw = json.loads((Path(spec.origin).parent / PRICE_MAP).read_bytes(), parse_float=Decimal)
    return {
        model: _Listed(
            model,
            str(entry.get("litellm_provider", "")),
            _price(entry),
            *_limits(entry),
            RETIRED.get(model) or day(entry.get("deprecation_date")),
        )
        for model, entry in raw.items()
        if model != "sample_spec" and "input_cost_per_token" in entry
    }


def _price(entry: Mapping[str, Any]) -> Price:
    cached, full = entry.get("cache_read_input_token_cost"), MILLION * Decimal(entry["input_cost_per_token"])
    written = (entry.get(f"cache_creation_input_token_cost{kept}") for kept in ("", "_above_1hr"))
    usual, hour = (
        None if cost is None else MILLION * Decimal(cost) or full for cost in written
    )  # 0: no price of its own
    return Price(
        input=full,
        output=MILLION * Decimal(entry.get("output_cost_per_token") or 0),
        cached_input=None if cached is None else MILLION * Decimal(cached),
        cache_write=usual,
        cache_write_1h=hour,
    )


def _limits(entry: Mapping[str, Any]) -> tuple[int | None, int | None]:
    reads, says = entry.get("max_input_tokens"), entry.get("max_output_tokens") or entry.get("max_tokens")
    return reads if isinstance(reads, int) else None, says if isinstance(says, int) else None


def day(said: object) -> date | None:
    """A day as providers write it (2026-12-11); None for anything else."""
    try:
        return date.fromisoformat(said) if isinstance(said, str) else None
    except ValueError:
        return None


def litellm_price(model: str) -> Price | None:
    """litellm's price for one of its model strings, or None where its map lacks the model."""
    found = _find(model)
    return found.price if found else None


@cache
def listed(model: str) -> tuple[int | None, int | None]:
    """How many tokens a model reads and says at most by litellm's map; None for what that does not tell."""
    found = _find(model)
    return (found.reads, found.says) if found else (None, None)


@cache
def retires(model: str) -> date | None:
    """The day on which a model's provider ends it, as far as the map and ``RETIRED`` know; None: no such day is known.

    A name without a date stands for its dated snapshots: where nobody says when it ends, it does with the last of them.
    A fine-tuned model (``ft:gpt-4o-2024-08-06:org::id``) ends with the one that it was made from.
    """
    provider, slash, bare = model.rpartition("/")
    if bare.startswith("ft:"):
        model = provider + slash + ":".join(bare.split(":")[:2])
    if (found := _find(model)) is None:
        return None
    if found.retires is not None:
        return found.retires
    ends = [e.retires for n, e in _price_map().items() if (m := SNAPSHOT.fullmatch(n)) and m[1] == found.name]
    known = [end for end in ends if end is not None]
    return max(known) if known and len(known) == len(ends) else None


def _find(model: str) -> _Listed | None:
    """What the map has. A string with a provider that the map lists bare (``openai/gpt-5`` as ``gpt-5``) is found only
    where the map's entry is that provider's, so that two vendors' namesakes are never confused.
    """
    known = _price_map()
    if model in known:
        return known[model]
    provider, slash, bare = model.partition("/")
    if slash and bare in known and known[bare].provider.startswith(provider):
        return known[bare]
    return None


@dataclass(frozen=True, slots=True)
class Prices:
    """The prices one policy reckons with: its student's, and those of its teacher and its fallbacks."""

    student: Price
    teachers: Mapping[str, Price]
    first_teacher: str

    @classmethod
    def of(cls, policy: PricedPolicy) -> Prices:
        """The policy's own prices win over litellm's map.

        Raises:
            PolicyError: neither knows what a teacher costs; without it no saving could be told.
        """
        teacher = policy.teacher
        teachers = {teacher.model: teacher.usd_per_million or litellm_price(teacher.model)}
        teachers |= {m: litellm_price(m) for m in teacher.fallbacks if m not in teachers}
        known = {model: price for model, price in teachers.items() if price is not None}
        if teacher.model not in known:
            raise PolicyError(
                f"policy {policy.name}: litellm's price map has no {teacher.model!r}; "
                "set teacher.usd_per_million: {input: ..., output: ...}"
            )
        if unknown := [m for m in teachers if m not in known]:
            raise PolicyError(
                f"policy {policy.name}: litellm's price map has no price for the fallbacks {unknown}; "
                "name them as litellm does, or leave them out"
            )
        return cls(student=policy.student.usd_per_million, teachers=known, first_teacher=teacher.model)

    def teacher(self, model: str | None = None) -> Price:
        """The price of a teacher by the policy's name for it; the first teacher's for any other."""
        return self.teachers.get(model or self.first_teacher, self.teachers[self.first_teacher])


def usage_from_openai(usage: Mapping[str, Any]) -> Usage:
    """Token counts from an answer's ``usage``, or from a stream's last chunk: the same figures both ways.

    Takes the names of chat completions and those of the responses API; what is missing counts as 0.
    """
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    details = details if isinstance(details, dict) else {}
    return Usage(
        input_tokens=_count(usage, "prompt_tokens") or _count(usage, "input_tokens"),
        cached_input_tokens=_count(details, "cached_tokens"),
        output_tokens=_count(usage, "completion_tokens") or _count(usage, "output_tokens"),
        cache_written_tokens=_count(details, "cache_write_tokens") or _count(usage, "cache_creation_input_tokens"),
        cache_written_1h_tokens=_count(details, "cache_write_1h_tokens"),
    )


def _count(of: Mapping[str, Any], name: str) -> int:
    """Servers leave counts out, or send null, a float, or what cannot be."""
    found = of.get(name)
    return int(found) if isinstance(found, int | float) and 0 < found <= MOST_TOKENS else 0


def cost_usd(usage: Usage, price: Price) -> Decimal:
    """What the tokens cost, in USD, exactly; what a prompt cache had, and what it took up, at prices of their own."""
    usd = _usd(usage, usage.cached_input_tokens, price)
    return usd + _surcharge_usd(usage, price) if usage.cache_written_tokens else usd


def _usd(usage: Usage, hits: int, price: Price) -> Decimal:
    """``hits``: the input tokens that a prompt cache served, taken instead of the usage's own."""
    if price.cached_input is None or not hits:
        full, discounted = usage.input_tokens, NOTHING
    else:
        hits = min(hits, usage.input_tokens)
        full, discounted = usage.input_tokens - hits, hits * price.cached_input
    return (full * price.input + discounted + usage.output_tokens * price.output) / MILLION


def _surcharge_usd(usage: Usage, price: Price) -> Decimal:
    """What the tokens that a prompt cache took up cost beyond others that are read. Never more than there are."""
    usual, hour = price.writes
    written = min(usage.cache_written_tokens, max(0, usage.input_tokens - usage.cached_input_tokens))
    long = min(usage.cache_written_1h_tokens, written)
    return ((written - long) * (usual - price.input) + long * (hour - price.input)) / MILLION


def counterfactual_usd(usage: Usage, teacher: Price, *, cached_share: float | None = None) -> Decimal:
    """What the teacher alone would have cost for this exchange, in USD.

    For an exchange the teacher answered, pass its own usage: that is what it did cost. For one that
    only the student answered, pass the student's usage and, as ``cached_share`` (0 to 1), the share
    of input tokens that the teacher's prompt cache last served in this conversation (0: none seen).
    The latter is an estimate: the two tokenisers differ, and the teacher's answer might have been
    longer or shorter; audits tell by how much. The student's own cache hits never count here.
    """
    if cached_share is None:
        return cost_usd(usage, teacher)
    hits = int(usage.input_tokens * min(1.0, max(0.0, cached_share)))
    return _usd(usage, hits, teacher)
