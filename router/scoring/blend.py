"""How the heads' and the neighbours' words become one probability and one expected gain.

Stacking (Wolpert 1992) on held-out words, with weights that are never negative (Breiman 1996), so that no
ranking is ever turned round; the neighbours get a weight only where they told something that the heads did not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from router.scoring import linear
from router.scoring.linear import Bools, Floats
from router.scoring.neighbours import Opinion

BOUND = 0.02
"""How sure the neighbours may be of themselves, and of the opposite."""
TRUST = 20.0
"""How many judged requests the calibration that there is counts for, when fresh ones adjust it."""


@dataclass(frozen=True, slots=True)
class Blend:
    """``logit = heads * (the heads' logit) + neighbours * (the neighbours' logit) + bias``; the gain alike, linear in
    the heads' difference, in P(unacceptable) and in the neighbours' gain."""

    heads: float = 1.0
    neighbours: float = 0.0
    bias: float = 0.0
    gain_heads: float = 1.0
    gain_risk: float = 0.0
    gain_neighbours: float = 0.0
    gain_bias: float = 0.0

    @classmethod
    def fit(cls, logits: Floats, opinions: Floats, labels: Bools, weights: Floats) -> Self:
        """From held-out logits (n,) and neighbours' words (n, 3), see ``Opinion``, with labels and weights (n,)."""
        x = np.stack([logits, _logits(opinions[:, 0])], axis=1)
        (heads, neighbours), bias = linear.nonnegative(x, labels, weights)
        return cls(heads, neighbours, bias)

    def with_gain(self, differences: Floats, risks: Floats, opinions: Floats, gains: Floats) -> Self:
        """These, with the gain's own weights: least squares on what was said held out of each example: the heads'
        difference, P(unacceptable), the neighbours' words; all (n,) or (n, 3)."""
        from scipy.optimize import nnls

        x = np.stack([differences, risks, opinions[:, 1]], axis=1)
        mean, usual = x.mean(axis=0), float(gains.mean())
        weights, _ = nnls(x - mean, gains - usual)
        if not weights.any():
            return self
        heads, risk, neighbours = weights.tolist()
        bias = usual - float(weights @ mean)
        return replace(self, gain_heads=heads, gain_risk=risk, gain_neighbours=neighbours, gain_bias=bias)

    def probabilities(self, logits: Floats, opinions: Floats) -> Floats:
        """P(acceptable) of many: arguments as in ``fit``, (n,) out."""
        z = self.heads * logits + self.neighbours * _logits(opinions[:, 0]) + self.bias
        found: Floats = 1 / (1 + np.exp(-z))
        return found

    def gains(self, differences: Floats, risks: Floats, opinions: Floats) -> Floats:
        """The expected gains of many: arguments as in ``with_gain``, (n,) out."""
        said = self.gain_heads * differences + self.gain_risk * risks
        return said + self.gain_neighbours * opinions[:, 1] + self.gain_bias

    def logit(self, heads: float, opinion: Opinion) -> float:
        return self.heads * heads + self.neighbours * linear.logit(opinion.acceptable, BOUND) + self.bias

    def gain(self, difference: float, risk: float, opinion: Opinion) -> float:
        said = self.gain_heads * difference + self.gain_risk * risk
        return said + self.gain_neighbours * opinion.gain + self.gain_bias

    def adjusted(self, logits: Floats, labels: Bools, weights: Floats) -> Self:
        """Calibrated anew on fresh judged requests: their blended logits (n,), labels and weights (n,).

        The calibration that there is counts for ``TRUST`` of them, so that a handful changes little.
        """
        slope, shift = linear.recalibration(logits, labels, weights, TRUST)
        return replace(
            self, heads=slope * self.heads, neighbours=slope * self.neighbours, bias=slope * self.bias + shift
        )


def _logits(p: npt.NDArray[np.float64]) -> Floats:
    kept = np.clip(p, BOUND, 1 - BOUND)
    found: Floats = np.log(kept / (1 - kept))
    return found
