"""Bootstrap intervals of rates, differences and rankings on one set of questions, paired by question.

Questions are drawn again with replacement (Efron 1979, Annals of Statistics 7), the same draws for both students, so
that what is hard for both moves neither. Means take the bias-corrected and accelerated limits (BCa: Efron 1987,
"Better Bootstrap Confidence Intervals", JASA 82), since rates near 1 are lopsided; other figures take percentiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from router.scoring.statistics.estimates import Interval, exact_interval

Floats = npt.NDArray[np.float64]

DRAWS = 2000
CONFIDENCE = 0.95
UNKNOWN = Interval(None, 0.0, 1.0)


class Resamples:
    """``draws`` samples of ``n`` questions, fixed by ``seed``; each figure below is taken on the same ones."""

    def __init__(self, n: int, seed: int = 0, draws: int = DRAWS, confidence: float = CONFIDENCE) -> None:
        self._n, self._confidence = n, confidence
        drawn = np.random.default_rng(seed).integers(0, max(1, n), (draws, n))
        flat = (drawn + n * np.arange(draws)[:, None]).ravel()
        counts = np.bincount(flat, minlength=draws * n).astype(np.float32).reshape(draws, n)
        self._counts = counts if n else None  # how often each draw has each question

    def rate(self, hits: Sequence[bool]) -> Interval:
        """The share of hits, (n,). Where all or none are, no draw differs, and the exact limits stand in."""
        values = np.asarray(hits, np.float64)
        if self._counts is None:
            return UNKNOWN
        if values.min() == values.max():
            return Interval(float(values[0]), *exact_interval(float(values[0]), self._n, self._confidence))
        return self._mean(values)

    def difference(self, first: Sequence[bool], second: Sequence[bool]) -> Interval:
        """The share of hits in ``first`` less that in ``second``, both (n,), by question. Where no question differs,
        the limits are those of a difference that was not seen once."""
        if self._counts is None:
            return Interval(None, -1.0, 1.0)
        values = np.asarray(first, np.float64) - np.asarray(second, np.float64)
        if values.min() == values.max():
            _, unseen = exact_interval(0.0, self._n, self._confidence)
            at = float(values[0])
            return Interval(at, max(-1.0, at - unseen), min(1.0, at + unseen))
        return self._mean(values)

    def ratio(self, above: Sequence[bool], below: Sequence[bool]) -> Interval:
        """Hits in ``above`` over hits in ``below``, both (n,); unknown where the latter has none."""
        a, b = np.asarray(above, np.float64), np.asarray(below, np.float64)
        if self._counts is None or not b.any():
            return Interval(None, 0.0, float("inf"))
        over = self._counts @ b
        drawn = (self._counts @ a)[over > 0] / over[over > 0]
        return Interval(float(a.sum() / b.sum()), *self._percentiles(drawn))

    def auroc(self, scores: Sequence[float], labels: Sequence[bool]) -> Interval:
        """The chance that a hit scores above a miss, ties counting half (Mann and Whitney 1947); both (n,)."""
        values, hits = np.asarray(scores, np.float64), np.asarray(labels, np.bool_)
        if self._counts is None or hits.all() or not hits.any():
            return UNKNOWN
        order = np.argsort(values, kind="stable")
        starts = np.flatnonzero(np.diff(values[order], prepend=-np.inf))  # where each run of equal scores begins
        whole = np.ones((1, self._n), np.float32)
        drawn = [_auroc(counts[:, order], hits[order], starts) for counts in (whole, self._counts)]
        known = drawn[1][np.isfinite(drawn[1])]
        return Interval(float(drawn[0][0]), *self._percentiles(known))

    def _mean(self, values: Floats) -> Interval:
        """BCa limits of a mean; the acceleration is the jackknife's, which for a mean is the skewness over 6 root n."""
        assert self._counts is not None
        estimate, normal = float(values.mean()), NormalDist()
        drawn = self._counts @ values / self._n
        below = float((drawn < estimate - 1e-9).mean() + (np.abs(drawn - estimate) <= 1e-9).mean() / 2)
        bias = normal.inv_cdf(min(max(below, 1 / len(drawn)), 1 - 1 / len(drawn)))
        centred = values - estimate
        acceleration = float((centred**3).sum() / (6 * (centred**2).sum() ** 1.5))
        tails = []
        for tail in ((1 - self._confidence) / 2, (1 + self._confidence) / 2):
            z = bias + normal.inv_cdf(tail)
            tails.append(normal.cdf(bias + z / (1 - acceleration * z)))
        low, high = np.quantile(drawn, tails).tolist()
        return Interval(estimate, min(low, estimate), max(high, estimate))

    def _percentiles(self, drawn: Floats) -> tuple[float, float]:
        tail = (1 - self._confidence) / 2
        low, high = np.quantile(drawn, (tail, 1 - tail)).tolist()
        return low, high


def _auroc(counts: npt.NDArray[np.float32], hits: npt.NDArray[np.bool_], starts: npt.NDArray[np.intp]) -> Floats:
    """For each row of ``counts`` (draws, n), scores ascending: how often a hit beats a miss; NaN without either."""
    good = np.add.reduceat(counts * hits, starts, axis=1).astype(np.float64)  # (draws, different scores)
    bad = np.add.reduceat(counts * ~hits, starts, axis=1).astype(np.float64)
    beaten = np.cumsum(bad, axis=1) - bad / 2
    pairs = good.sum(axis=1) * bad.sum(axis=1)
    found: Floats = np.where(pairs > 0, (good * beaten).sum(axis=1) / np.where(pairs > 0, pairs, 1), np.nan)
    return found
