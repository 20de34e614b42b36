"""How long the teacher's answer will be: what escalating costs is mostly its output.

Ridge regression (Hoerl & Kennard 1970) of the logarithm of its output tokens on the request's structure, brought
back to tokens with the mean error that taking logarithms makes (smearing; Duan 1983). Embeddings were found to add
nothing that holds on other requests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from router.scoring.text.reader import F32

LEAST = 50
"""Answers of known length below which nothing is learnt of them."""
STRENGTH = 0.01


@dataclass(frozen=True, slots=True)
class Lengths:
    """``log(1 + tokens) = weights . structure + bias``, within ``least`` and ``most``; ``weights``: float32,
    (len(STRUCTURE),). ``smear`` brings means of logarithms back to means. ``usual``: the mean of input and output
    tokens."""

    weights: F32
    bias: float
    least: float
    most: float
    smear: float
    usual: tuple[float, float]

    @classmethod
    def fit(cls, structures: Sequence[F32], input_tokens: Sequence[int], output_tokens: Sequence[int]) -> Self | None:
        """From (n,) answered requests; None of fewer than ``LEAST``."""
        if len(output_tokens) < LEAST:
            return None
        x, y = np.stack(structures).astype(np.float64), np.log1p(output_tokens)
        mean, spread = x.mean(axis=0), x.std(axis=0)
        spread[spread < 1e-6] = np.inf  # what never varies teaches nothing
        z = (x - mean) / spread
        ridge = z.T @ z + STRENGTH * len(z) * np.eye(z.shape[1])
        weights = np.linalg.solve(ridge, z.T @ (y - y.mean())) / spread
        bias = float(y.mean() - mean @ weights)
        least, most = float(y.min()), float(y.max())
        found = np.exp(np.clip(x @ weights + bias, least, most))
        smear = float(np.mean(1 + np.array(output_tokens)) / found.mean())
        usual = float(np.mean(input_tokens)), float(np.mean(output_tokens))
        return cls(weights.astype(np.float32), bias, least, most, smear, usual)

    def tokens(self, structure: F32) -> float:
        """The expected output tokens of the teacher's answer, by ``Features.structure`` within its usual range."""
        logarithm = float(self.weights.dot(structure)) + self.bias
        return math.exp(min(self.most, max(self.least, logarithm))) * self.smear - 1
