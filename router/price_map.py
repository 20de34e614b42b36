"""litellm's packaged map of models: what they cost, how much they read and say, when they end. Read without importing
litellm (2.5 s). It is the one source of prices beside a policy's own words: no other kept list has service tiers.

Limits, on purpose: what is sold by the second, the pixel, the character or the page has no price here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from router.contracts.prices import PartPrice, Price, TierPrice

MILLION = Decimal(1_000_000)
PRICE_MAP = "model_prices_and_context_window_backup.json"
SNAPSHOT = re.compile(r"(.+)-\d{4}-?\d{2}-?\d{2}")
RETIRED = {"gpt-5.1-2025-11-13": date(2027, 4, 1), "gpt-5.4-nano-2026-03-17": date(2027, 4, 1)}
"""What OpenAI has announced (https://developers.openai.com/api/docs/deprecations) and the map does not tell."""

FIELDS: Mapping[str, str] = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "input_cost_per_token_cache_hit": "cached_input",
    "cache_read_input_token_cost": "cached_input",
    "cache_creation_input_token_cost": "cache_write",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
    "output_cost_per_reasoning_token": "reasoning",
    "input_cost_per_audio_token": "input_audio",
    "cache_read_input_audio_token_cost": "cached_audio",
    "output_cost_per_audio_token": "output_audio",
    "input_cost_per_image_token": "input_image",
    "output_cost_per_image_token": "output_image",
}
"""The map's fields and a price's; where two mean the same, the later wins."""
_NAME = re.compile(rf"({'|'.join(sorted(FIELDS, key=len, reverse=True))})(?:_above_(\d+)(k?)_tokens)?(?:_([a-z]+))?")
_TIERS = {"batches": "batch"}
_INCLUSIVE = ("xai",)
"""Providers whose price for a long request begins with the very length that it is named by."""
_SEARCHES = {"search": "medium", "search_low": "low", "search_high": "high"}


@dataclass(frozen=True, slots=True)
class MapEntry:
    """A model in the map; tokens that it reads and says at most, and the day on which its provider ends it, None where
    the map does not tell."""

    name: str
    price: Price
    reads: int | None
    says: int | None
    retires: date | None


@cache
def _price_map() -> Mapping[str, Mapping[str, Any]]:
    """The entries of all models that are sold by the token."""
    spec = find_spec("litellm")
    if spec is None or spec.origin is None:
        return {}
    raw = json.loads((Path(spec.origin).parent / PRICE_MAP).read_bytes(), parse_float=Decimal)
    return {
        m: e for m, e in raw.items() if m != "sample_spec" and e.keys() & {"input_cost_per_token", "tiered_pricing"}
    }


@cache
def _listed(model: str) -> MapEntry | None:
    entry = _price_map()[model]
    if (price := _Reading(entry).price()) is None:
        return None
    reads, says = entry.get("max_input_tokens"), entry.get("max_output_tokens") or entry.get("max_tokens")
    return MapEntry(
        model,
        price,
        reads if isinstance(reads, int) else None,
        says if isinstance(says, int) else None,
        _end(model),
    )


def _end(model: str) -> date | None:
    return RETIRED.get(model) or day(_price_map()[model].get("deprecation_date"))


class _Reading:
    """One entry on its way to a price."""

    def __init__(self, entry: Mapping[str, Any]) -> None:
        self._entry = entry
        self._base: dict[str, Decimal] = {}
        self._above: dict[int, dict[str, Decimal]] = {}
        self._tiers: dict[str, dict[str, Decimal]] = {}
        self._tiers_above: dict[str, dict[int, dict[str, Decimal]]] = {}

    def price(self) -> Price | None:
        """None where it has none by the token."""
        for name in sorted(self._entry, key=_order):
            self._take(name, self._entry[name])
        self._lengths()
        if "input" not in self._base:
            return None
        tiers = {
            tier: TierPrice(**self._tiers.get(tier, {}), above=_parts(self._tiers_above.get(tier, {})))
            for tier in {*self._tiers, *self._tiers_above}
        }
        output = self._base.get("output") or self._base.get("output_image") or Decimal(0)
        rest = {"above": _parts(self._above), "tiers": tiers, "times": self._times(), **self._fees()}
        return Price(**(self._base | {"output": output} | rest))

    def _take(self, name: str, told: Any) -> None:
        found, usd = _NAME.fullmatch(name), _number(told)
        if found is None or usd is None:
            return
        field, length, thousand, tier = FIELDS[found[1]], found[2], found[3], found[4]
        if field.startswith("cache_write") and not usd:
            return  # 0: no price of its own
        place = self._tiers.setdefault(_TIERS.get(tier, tier), {}) if tier else self._base
        if length:
            tokens = self._length(int(length) * (1000 if thousand else 1))
            above = self._tiers_above.setdefault(_TIERS.get(tier, tier), {}) if tier else self._above
            place = above.setdefault(tokens, {})
        place[field] = MILLION * usd

    def _lengths(self) -> None:
        """Prices by ranges of a request's length, as some providers have them; the first range is the usual."""
        ranges = self._entry.get("tiered_pricing")
        for one in ranges if isinstance(ranges, list) else ():
            bounds = one.get("range")
            if not isinstance(bounds, list) or (least := _number(bounds[0])) is None:
                continue
            told = {FIELDS[name]: MILLION * usd for name in one if name in FIELDS and (usd := _number(one[name]))}
            if least and "input" in told:  # what a range does not say of its cache costs what it reads
                told = dict.fromkeys(self._base.keys() & {"cached_input", "cache_write"}, told["input"]) | told
            place = self._above.setdefault(int(least), {}) if least else self._base
            place |= told

    def _length(self, tokens: int) -> int:
        return tokens - 1 if self._entry.get("litellm_provider") in _INCLUSIVE else tokens

    def _times(self) -> dict[str, Decimal]:
        told = self._entry.get("provider_specific_entry")
        known = told.items() if isinstance(told, dict) else ()
        return {name: factor for name, value in known if (factor := _number(value)) and "minimax" not in name}

    def _fees(self) -> dict[str, Decimal]:
        told, found = self._entry.get("search_context_cost_per_query"), dict[str, Decimal]()
        sizes = told if isinstance(told, dict) else {}
        for field, size in _SEARCHES.items():
            if (usd := _number(sizes.get(f"search_context_size_{size}"))) is not None:
                found[field] = MILLION * usd
        if (usd := _number(self._entry.get("input_cost_per_request"))) is not None:
            found["request"] = MILLION * usd
        return found


def _order(name: str) -> int:
    return list(FIELDS).index(name) if name in FIELDS else len(FIELDS)


def _parts(found: Mapping[int, Mapping[str, Decimal]]) -> dict[int, PartPrice]:
    return {length: PartPrice(**told) for length, told in found.items()}


def _number(value: Any) -> Decimal | None:
    """Floats are read as Decimal; a few entries hold texts."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    return Decimal(value) if value >= 0 else None


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
    known = list(_ends(found.name))
    return max(end for end in known if end is not None) if known and None not in known else None


def _ends(name: str) -> Iterator[date | None]:
    """When a model's dated snapshots end."""
    for model in _price_map():
        if (snapshot := SNAPSHOT.fullmatch(model)) and snapshot[1] == name:
            yield _end(model)


def _find(model: str) -> MapEntry | None:
    """What the map has. A string with a provider that the map lists bare (``openai/gpt-5`` as ``gpt-5``) is found only
    where the map's entry is that provider's, so that two vendors' namesakes are never confused.
    """
    known = _price_map()
    if model in known:
        return _listed(model)
    provider, slash, bare = model.partition("/")
    if slash and bare in known and str(known[bare].get("litellm_provider", "")).startswith(provider):
        return _listed(bare)
    return None
