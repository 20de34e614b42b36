"""The second look: P(acceptable | request, answer) from the score and the student's own certainty.

A learned head on quantiles of the token probabilities, not the mean alone (Gupta et al. 2024,
arXiv 2404.10136).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter, mul

import numpy as np

from router.contracts.records import Signals
from router.scoring import linear
from router.scoring.linear import Bools, Floats, Platt

STRENGTHS = (0.03, 0.3, 3.0)
LEAST = 30
"""Examples with signals below which no head is fitted."""
_QUANTILES = ("mean_logprob", "min_logprob", "first_logprob", "q10_logprob", "q25_logprob", "q50_logprob")
_quantiles = attrgetter(*_QUANTILES)
_INPUTS = 5 + 2 * len(_QUANTILES)
_LOWEST, _LOWEST_SUM = -10.0, -50.0


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """A calibrated logistic regression on ``inputs``; plain floats, so that one decision costs little.

    ``knows_partial``: it was fitted on answers of which only the first tokens were seen, too. Raises
    ValueError where the weights are not one for each input.
    """

    weights: tuple[float, ...]
    bias: float
    knows_partial: bool

    def __post_init__(self) -> None:
        if len(self.weights) != _INPUTS:
            raise ValueError(f"an answer head has {_INPUTS} weights, not {len(self.weights)}")

    def __call__(self, score: float, signals: Signals) -> float:
        """P(acceptable | request, answer).

        The first tokens of an answer hesitate less than the whole does: a head that never saw such may
        lower the request's score then, but not raise it.
        """
        p = linear.sigmoid(sum(map(mul, self.weights, inputs(score, signals))) + self.bias)
        return p if signals.complete or self.knows_partial else min(p, score)


def inputs(score: float, signals: Signals) -> list[float]:
    """What the head sees: the score's log odds; quantiles as they are and as probabilities; lengths."""
    logs = [p if p > _LOWEST else _LOWEST for p in _quantiles(signals)]
    total = max(signals.sum_logprob, _LOWEST_SUM)
    return [
        linear.logit(score),
        *logs,
        *map(math.exp, logs),
        math.log1p(signals.tokens),
        total,
        math.exp(total),
        float(signals.complete),
    ]


def fit(
    scores: Sequence[float], signals: Sequence[Signals], labels: Bools, weights: Floats, seed: int
) -> tuple[AnswerHead, Floats] | None:
    """A head, and each example's probability when held out (n,); None where there is too little to learn.

    ``scores`` must be held out themselves, or the head would trust them too much.
    """
    if len(labels) < LEAST or min(int(labels.sum()), int((~labels).sum())) < 2:
        return None
    x = np.array([inputs(p, s) for p, s in zip(scores, signals, strict=True)])  # (n, d)
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale[scale < 1e-9] = math.inf  # what never varies teaches nothing
    fitted = linear.fit((x - mean) / scale, labels, weights, STRENGTHS, seed)
    platt: Platt = fitted.platt
    plain = fitted.linear.weights / scale
    bias = platt.slope * (fitted.linear.bias - float(plain @ mean)) + platt.intercept
    partial = not all(s.complete for s in signals)
    return AnswerHead(tuple((platt.slope * plain).tolist()), bias, partial), fitted.held_out
