"""Tokens to US dollars, and what the teacher alone would have cost. The one place where a count is multiplied by a
price."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from router.contracts.prices import Price
from router.contracts.records import Usage
from router.errors import PolicyError
from router.price_map import MILLION, litellm_price

NOTHING, ONE = Decimal(0), Decimal(1)


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


def cost_usd(usage: Usage, price: Price) -> Decimal:
    """What an answer costs, in USD, exactly: what its provider says that it bills, else what is reckoned."""
    return reckoned_usd(usage, price) if usage.billed_usd is None else usage.billed_usd


def reckoned_usd(usage: Usage, price: Price) -> Decimal:
    """What so many tokens and all beside them cost at a price, whatever who sold them billed: each kind of token at its
    own, by how much was read and by the tier that was served."""
    at = price.at(usage.input_tokens, usage.service_tier)
    hits = min(usage.cached_input_tokens, usage.input_tokens)
    cached = _or(at.cached_input, at.input)
    usd = (usage.input_tokens - hits) * at.input + hits * cached + usage.output_tokens * at.output
    usd += _surcharges(usage, at, usage.input_tokens - hits, cached)
    for name in (usage.service_tier, usage.region) if price.times else ():
        usd *= price.times.get(name or "", ONE)
    return (usd + price.request + _searches(usage, price)) / MILLION


def _surcharges(usage: Usage, at: Price, fresh: int, cached: Decimal) -> Decimal:
    """What some of the tokens cost beyond the others, per million. Never more of them than there are: ``fresh`` were
    read anew, and others ``cached`` for so much."""
    usd = NOTHING
    if usage.cache_written_tokens:
        usual, hour = at.writes
        written = min(usage.cache_written_tokens, fresh)
        long = min(usage.cache_written_1h_tokens, written)
        usd += (written - long) * (usual - at.input) + long * (hour - at.input)
    if usage.input_audio_tokens and (at.input_audio is not None or at.cached_audio is not None):
        kept = min(usage.cached_audio_tokens, usage.cached_input_tokens, usage.input_audio_tokens)
        heard = min(usage.input_audio_tokens - kept, fresh)
        usd += kept * (_or(at.cached_audio, cached) - cached) + heard * (_or(at.input_audio, at.input) - at.input)
    if usage.input_image_tokens and at.input_image is not None:
        usd += min(usage.input_image_tokens, fresh) * (at.input_image - at.input)
    left = usage.output_tokens
    for tokens, own in (
        (usage.output_audio_tokens, at.output_audio),
        (usage.output_image_tokens, at.output_image),
        (usage.reasoning_tokens, at.reasoning),
    ):
        if tokens and own is not None:
            apart = min(tokens, left)
            usd, left = usd + apart * (own - at.output), left - apart
    return usd


def _searches(usage: Usage, price: Price) -> Decimal:
    if not usage.searches:
        return NOTHING
    own = {"low": price.search_low, "high": price.search_high}.get(usage.search_size or "")
    return usage.searches * _or(own, price.search)


def _or(own: Decimal | None, otherwise: Decimal) -> Decimal:
    return otherwise if own is None else own


def dearest_usd(input_tokens: int, output_tokens: int, price: Price, *, tier: str | None, searches: int) -> Decimal:
    """What a request can cost at most that reads and gets so many tokens: each at the dearest of its kind, at the
    length and the tier at which that is most. ``tier`` is what it asks for; one that asks for none, or leaves it to the
    provider (``auto``), may be served as its account has it set, at ``priority``."""
    tiers = {None, tier} if tier not in (None, "auto") else {None, "priority"}
    rates = [price.at(length, name) for name in tiers for length in (0, input_tokens)]
    read = max(max(found for found in _read_rates(at) if found is not None) for at in rates)
    said = max(max(found for found in _said_rates(at) if found is not None) for at in rates)
    times = max(ONE, *price.times.values()) if price.times else ONE
    search = max(price.search, price.search_low or NOTHING, price.search_high or NOTHING)
    usd = (input_tokens * read + output_tokens * said) * times
    return (usd + price.request + searches * search) / MILLION


def _read_rates(at: Price) -> tuple[Decimal | None, ...]:
    return at.input, at.cached_input, at.cache_write, at.cache_write_1h, at.input_audio, at.cached_audio, at.input_image


def _said_rates(at: Price) -> tuple[Decimal | None, ...]:
    return at.output, at.reasoning, at.output_audio, at.output_image


def counterfactual_usd(usage: Usage, teacher: Price, *, cached_share: float | None = None) -> Decimal:
    """What the teacher alone would have cost for this exchange, in USD.

    For an exchange the teacher answered, pass its own usage: that is what it did cost. For one that only the student
    answered, pass the student's usage with the output that the teacher's would have had, an estimate
    (``router.routing.lengths``), and as ``cached_share`` (0 to 1) the share of input tokens that the teacher's prompt
    cache last served in this conversation (0: none seen). The student's own cache hits never count here, nor does its
    bill.
    """
    if cached_share is None:
        return cost_usd(usage, teacher)
    hits = int(usage.input_tokens * min(1.0, max(0.0, cached_share)))
    plain = Usage(input_tokens=usage.input_tokens, cached_input_tokens=hits, output_tokens=usage.output_tokens)
    return reckoned_usd(plain, teacher)
