"""What a million tokens cost at one backend, in US dollars, and what changes that."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Usd = Annotated[Decimal, Field(ge=0)]


class PartPrice(BaseModel):
    """USD per million of each. What is null here costs what it does without the condition that this stands under."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    input: Usd | None = None
    """Tokens that are read."""
    output: Usd | None = None
    """Tokens that are written."""
    cached_input: Usd | None = None
    """Tokens that a prompt cache had; null: as ``input``."""
    cache_write: Usd | None = None
    """Tokens that a prompt cache took up; null: 1.25 times ``input``, as Claude's."""
    cache_write_1h: Usd | None = None
    """Tokens that it took up to be kept for an hour; null: twice ``input``."""
    reasoning: Usd | None = None
    """Tokens that were thought; null: as ``output``."""
    input_audio: Usd | None = None
    """Tokens of sound that are read; null: as ``input``."""
    cached_audio: Usd | None = None
    """Tokens of sound that a prompt cache had; null: as ``cached_input``."""
    output_audio: Usd | None = None
    """Tokens of sound that are written; null: as ``output``."""
    input_image: Usd | None = None
    """Tokens of pictures that are read; null: as ``input``."""
    output_image: Usd | None = None
    """Tokens of pictures that are written; null: as ``output``."""


class TierPrice(PartPrice):
    """The same, and what changes it for a long request."""

    above: Mapping[Annotated[int, Field(gt=0)], PartPrice] = {}
    """What all tokens of a request cost that reads more tokens than this: ``{200000: {input: 4, output: 18}}``."""


class Price(TierPrice):
    """USD per million tokens, and per million of whatever else is paid for."""

    input: Usd
    """Tokens that are read."""
    output: Usd
    """Tokens that are written."""
    tiers: Mapping[str, TierPrice] = {}
    """What a service tier changes, by the name that the answer gives it, else the request (``service_tier``):
    ``{flex: {input: 0.5, output: 4}, priority: {input: 2, output: 16}}``."""
    times: Mapping[str, Usd] = {}
    """Factors on all tokens, by the tier or the region that the answer names: ``{us: 1.1, fast: 2}``."""
    request: Usd = Decimal(0)
    """Requests, each: 5000 is half a cent a request."""
    search: Usd = Decimal(0)
    """Searches of the web that an answer took, each."""
    search_low: Usd | None = None
    """Those with a small context (``search_context_size``); null: as ``search``."""
    search_high: Usd | None = None
    """Those with a large one; null: as ``search``."""

    @property
    def writes(self) -> tuple[Decimal, Decimal]:
        """What a token that a prompt cache took up costs, for as long as is usual and for an hour."""
        usual = Decimal("1.25") * self.input if self.cache_write is None else self.cache_write
        return usual, 2 * self.input if self.cache_write_1h is None else self.cache_write_1h

    def at(self, input_tokens: int, tier: str | None = None) -> Price:
        """What holds for a request that reads so many tokens at a service tier. A tier's price gives way to that of a
        long request, and both to the tier's own for a long one; of several lengths the longest counts."""
        if not self.above and not self.tiers:
            return self
        special = self.tiers.get(tier) if tier is not None else None
        passed = sum(input_tokens > length for length in self._lengths)
        known = self._known.get(key := (tier if special else None, passed))
        if known is None:
            known = self._known[key] = self._with(special, self._lengths[:passed])
        return known

    def _with(self, special: TierPrice | None, lengths: tuple[int, ...]) -> Price:
        parts: list[PartPrice | None] = [special]
        parts += [found for length in lengths for found in (self.above.get(length), _above(special, length))]
        found: dict[str, Any] = {name: getattr(self, name) for name in type(self).model_fields}
        for part in parts:
            told = {name: value for name in PartPrice.model_fields if (value := getattr(part, name, None)) is not None}
            if "output" in told:
                found["reasoning"] = None  # it was told beside another output's
            found |= told
        return Price.model_construct(**(found | {"above": {}, "tiers": {}}))

    @cached_property
    def _lengths(self) -> tuple[int, ...]:
        return tuple(sorted({*self.above, *(length for tier in self.tiers.values() for length in tier.above)}))

    @cached_property
    def _known(self) -> dict[tuple[str | None, int], Price]:
        return {}


def _above(tier: TierPrice | None, length: int) -> PartPrice | None:
    return tier.above.get(length) if tier is not None else None
