"""The share that a bundle's certificate tells of, beside the share that its clients got."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from router.contracts.bundles import Manifest

CONFIDENCE = 0.95


@dataclass(frozen=True)
class KeptShare:
    """``promised``: the share of the traffic that the student was to serve, from ``examples`` audited requests.
    ``got``: the share that it served of ``requests`` that clients sent since. ``low`` and ``high`` are where that lies
    19 times in 20, where nothing but chance is between the two."""

    promised: float
    examples: int
    got: float
    requests: int
    low: float
    high: float

    @property
    def kept(self) -> bool:
        return self.low <= self.got <= self.high

    def __str__(self) -> str:
        inside = "inside" if self.kept else "OUTSIDE"
        return (
            f"promised {self.promised:.1%} by {self.examples} audited requests; of {self.requests} since then clients "
            f"got {self.got:.1%}, {inside} the interval for so many, {self.low:.1%} to {self.high:.1%}"
        )


def kept_share(made: Manifest, tiers: Sequence[str]) -> KeptShare | None:
    """What became of the bundle's share in the requests that were decided by it, told by the tiers that answered them.
    None where nothing was promised, or nobody asked."""
    evidence = made.thresholds.evidence
    if evidence is None or not evidence.examples or not tiers:
        return None
    promised = evidence.served / evidence.examples if evidence.share is None else evidence.share
    low, high = coming(round(promised * evidence.examples), evidence.examples, len(tiers))
    served = sum(tier == "student" for tier in tiers)
    got, promised, low, high = (round(x, 4) for x in (served / len(tiers), promised, low, high))
    return KeptShare(promised, evidence.examples, got, len(tiers), low, high)


def coming(hits: int, of: int, ahead: int) -> tuple[float, float]:
    """The limits of a share in the next ``ahead`` requests, after ``hits`` in ``of``: exact, since in random order the
    hits before and after are hypergeometric (Fisher's test, turned round). Seldom outside: 1 - ``CONFIDENCE`` at most.
    """
    from scipy.stats import hypergeom

    after = np.arange(ahead + 1)
    all_hits, tail = hits + after, (1 - CONFIDENCE) / 2
    at_most = hypergeom.cdf(after, of + ahead, all_hits, ahead)
    at_least = hypergeom.sf(after - 1, of + ahead, all_hits, ahead)
    possible = after[(at_most > tail) & (at_least > tail)]
    return float(possible.min()) / ahead, float(possible.max()) / ahead
