"""Has the distribution of the scores moved since the scorer was fitted?

The reference is the scorer's own scores of a uniform sample of traffic that it never saw: the rows that
certified its thresholds. Live scores are compared with it a block at a time, by the largest gap between
the two distribution functions (Kolmogorov and Smirnov). Either is within sqrt(ln(2/a)/2n) of the truth with
probability 1 - a (Dvoretzky, Kiefer, Wolfowitz; Massart 1990, Ann. Probab. 18(3)), whatever the distribution,
ties included, so a gap above the sum of both radii is no chance. Blocks do not overlap, and the k-th may err
with probability ``ALPHA``/2k(k+1), which sums to ``ALPHA``/2: looking for ever raises a false alarm with
probability ``ALPHA`` at most. A block's size also bounds how small a shift can speak: hours of the day do not.

The population stability index is shown beside it, since many know its scale (above 0.25 is a marked shift), but
it decides nothing: its chance level depends on both sample sizes and on the bins.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

BLOCK = 500
"""Scores that are compared at a time."""
ALPHA = 0.05
EDGES = 20


@dataclass(frozen=True, slots=True)
class Spread:
    """A distribution function at some scores: ``at_most[i]`` is the share of ``examples`` scores that are
    <= ``edges[i]``. Edges rise."""

    edges: tuple[float, ...]
    at_most: tuple[float, ...]
    examples: int

    @classmethod
    def of(cls, scores: Iterable[float]) -> Self:
        """At its own quantiles, and below all of them, so that scores below a single value of all are seen too."""
        ordered = sorted(scores)
        n = len(ordered)
        quantiles = {ordered[i * n // EDGES] for i in range(EDGES)} if n else set()
        edges = sorted({*quantiles, math.nextafter(ordered[0], -1)}) if n else []
        return cls(tuple(edges), tuple(_ranks(ordered, e) / n for e in edges), n)

    @classmethod
    def read(cls, report: Mapping[str, Any]) -> Self | None:
        """What ``as_dict`` wrote; None where there is none, as in bundles of old, or no example."""
        try:
            found = cls(tuple(report["edges"]), tuple(report["at_most"]), int(report["examples"]))
        except (KeyError, TypeError, ValueError):
            return None
        return found if found.examples > 0 and len(found.edges) == len(found.at_most) > 0 else None

    def as_dict(self) -> dict[str, Any]:
        return {"edges": list(self.edges), "at_most": list(self.at_most), "examples": self.examples}


def _ranks(ordered: Sequence[float], edge: float) -> int:
    return bisect_left(ordered, True, key=lambda s: s > edge)


@dataclass(frozen=True, slots=True)
class Shift:
    """The last whole block beside the reference: the largest ``gap`` of the distribution functions, at score
    ``at``; positive where live scores are lower. Beyond ``bound`` it is no chance. ``block`` counts from 1."""

    gap: float
    at: float
    bound: float
    stability_index: float
    block: int

    @property
    def shifted(self) -> bool:
        return abs(self.gap) > self.bound


class Shifts:
    """Follows one scorer's live scores, in their order."""

    def __init__(self, reference: Spread) -> None:
        self._reference = reference
        self._counts = [0] * (len(reference.edges) + 1)
        self._blocks = 0
        self.last: Shift | None = None

    def add(self, score: float) -> None:
        self._counts[bisect_left(self._reference.edges, score)] += 1
        if sum(self._counts) == BLOCK:
            self._blocks += 1
            self.last = compare(self._reference, self._counts, self._blocks)
            self._counts = [0] * len(self._counts)


def compare(reference: Spread, counts: Sequence[int], block: int) -> Shift:
    """``counts`` of live scores in the bins that the reference's edges make, each closed above: one more than edges."""
    n, total, gap, at = sum(counts), 0, 0.0, reference.edges[0]
    for edge, known, count in zip(reference.edges, reference.at_most, counts, strict=False):
        total += count
        if abs(total / n - known) > abs(gap):
            gap, at = total / n - known, edge
    spent = ALPHA / (2 * block * (block + 1))
    bound = _radius(reference.examples, ALPHA / 2) + _radius(n, spent)
    expected = [b - a for a, b in zip((0.0, *reference.at_most), (*reference.at_most, 1.0), strict=True)]
    return Shift(gap, at, bound, _stability_index(expected, [c / n for c in counts], n), block)


def _radius(n: int, alpha: float) -> float:
    return math.sqrt(math.log(2 / alpha) / (2 * n))


def _stability_index(expected: Sequence[float], found: Sequence[float], n: int) -> float:
    """Sum of (found - expected) ln(found / expected); an empty bin counts as half a request."""
    least = 0.5 / n
    pairs = [(max(e, least), max(f, least)) for e, f in zip(expected, found, strict=True) if e or f]
    return sum((f - e) * math.log(f / e) for e, f in pairs)
