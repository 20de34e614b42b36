"""The third look: P(acceptable | request, answer, how many samples say the same).

Drawn only where the second look left a doubt, and only where it pays: agreement costs answers
(Wang et al. 2022, "Self-Consistency", arXiv 2203.11171; as a rule of deferral Yue et al. 2023, "Large
Language Model Cascades with Mixture of Thoughts Representations", arXiv 2310.03094).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from router.contracts.records import Signals
from router.scoring import linear
from router.scoring.linear import Bools, Floats
from router.scoring.rows import Rows

LEAST = 40
"""Examples with samples below which nothing is fitted: each tells one bit at most, and few are in doubt."""
PER_BIN = 20
STRENGTHS = (0.03, 0.3, 3.0)


@dataclass(frozen=True, slots=True)
class Agreement:
    """A calibrated logistic regression on the second look's log odds and the share of ``samples`` that agree.

    ``shares[b][j]`` is how often j of the samples agreed where the second look's probability lay in the
    b-th part between ``edges``.
    """

    on_logit: float
    on_share: float
    bias: float
    samples: int
    edges: tuple[float, ...]
    shares: tuple[tuple[float, ...], ...]

    def __call__(self, p: float, share: float) -> float:
        """P(acceptable) once a ``share`` of the samples said what the answer says, ``p`` being the second look's."""
        return linear.sigmoid(self.on_logit * linear.logit(p) + self.on_share * share + self.bias)

    def chance(self, p: float, threshold: float) -> float:
        """The chance that samples lift an answer of probability ``p`` to the ``threshold``."""
        seen = self.shares[bisect_right(self.edges, p)]
        return sum(often for j, often in enumerate(seen) if self(p, j / self.samples) >= threshold)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """From JSON. Raises KeyError or TypeError where it is something else."""
        shares = tuple(tuple(row) for row in plain["shares"])
        return cls(**{**plain, "edges": tuple(plain["edges"]), "shares": shares})

    @classmethod
    def fit(cls, looks: Floats, signals: Sequence[Signals], labels: Bools, weights: Floats, seed: int) -> Self | None:
        """From those examples of which as many samples were drawn as of most; ``looks`` are the second look's
        probabilities, held out (n,). None where they are too few to learn from."""
        counts = Counter(s.samples for s in signals if s.agreement is not None and s.samples > 0)
        samples = counts.most_common(1)[0][0] if counts else 0
        drawn = np.array([samples > 0 and s.agreement is not None and s.samples == samples for s in signals], np.bool_)
        known, p = labels[drawn], looks[drawn]
        if len(known) < LEAST or min(int(known.sum()), int((~known).sum())) < 2:
            return None
        share = np.array([s.agreement for s, d in zip(signals, drawn, strict=True) if d], np.float64)
        x = np.stack([[linear.logit(q) for q in p.tolist()], share], axis=1)  # (m, 2)
        mean, scale = x.mean(axis=0), x.std(axis=0)
        scale[scale < 1e-9] = math.inf
        fitted = linear.fit(Rows((x - mean) / scale), known, weights[drawn], STRENGTHS, seed)
        plain, platt = fitted.linear.weights / scale, fitted.platt
        bias = platt.slope * (fitted.linear.bias - float(plain @ mean)) + platt.intercept
        on_logit, on_share = (platt.slope * plain).tolist()
        edges, shares = _distribution(p, share, samples)
        return cls(on_logit, on_share, bias, samples, edges, shares)


def _distribution(p: Floats, share: Floats, samples: int) -> tuple[tuple[float, ...], tuple[tuple[float, ...], ...]]:
    """How often how many samples agreed, by parts of ``p`` with ``PER_BIN`` examples or more each."""
    parts = np.array_split(np.argsort(p, kind="stable"), max(1, len(p) // PER_BIN))
    edges = tuple(float(p[part[0]]) for part in parts[1:])
    agreeing = np.rint(share * samples).astype(int)
    shares = tuple(tuple((np.bincount(agreeing[part], minlength=samples + 1) / len(part)).tolist()) for part in parts)
    return edges, shares
