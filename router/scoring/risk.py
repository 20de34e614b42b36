"""Bounds on a rate of failures: exact from counts, by betting from weighted losses and at any time."""

from __future__ import annotations

import math
from bisect import bisect_left

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
BETS = tuple(0.6 * 0.6**k for k in range(14))
"""What an ``EProcess`` stakes, as shares of the largest stake that can never ruin it: from bold to timid."""


def clopper_pearson_upper(failures: int, n: int, confidence: float) -> float:
    """The one-sided exact upper bound on a rate (Clopper and Pearson 1934); 1 where nothing was seen."""
    from scipy.special import betaincinv  # noqa: PLC0415

    return 1.0 if failures >= n else float(betaincinv(failures + 1, n - failures, confidence))


def break_probability(failures: int, n: int, level: float, horizon: int | None = None) -> float:
    """The chance that a threshold set by ``failures`` breaks the floor, at the worst: exact, whatever the traffic.

    The threshold lets in what scores above the best-scored failure but ``failures`` of a uniform sample of
    ``n``, so that ``failures`` of them are let in. The rate at which traffic then fails, over all requests,
    is distributed as an order statistic, Beta(failures + 1, n - failures), or below it (Wilks 1941). The
    floor breaks where that rate exceeds ``level``; with a ``horizon``, where more than ``level`` of the next
    ``horizon`` requests fail. By exchangeability that is a hypergeometric tail: the next requests' failures
    and the sample's stand in random order.
    """
    from scipy import stats  # noqa: PLC0415

    if failures >= n:
        return 1.0
    if horizon is None:
        return float(stats.binom.cdf(failures, n, level))
    allowed = math.floor(level * horizon + 1e-9)  # 0.05 * 20 is one failure, whatever its last binary digit
    if allowed >= horizon:
        return 0.0
    return float(stats.hypergeom.cdf(failures, n + horizon, failures + 1 + allowed, n))


def most_failures(n: int, level: float, confidence: float, horizon: int | None = None) -> int:
    """How many of a uniform sample of ``n`` may fail among those that a threshold lets in, so that the floor
    breaks with probability ``1 - confidence`` at most (``break_probability``); -1 where even none is too many.

    With a ``horizon`` both hold: over the next requests, and in the long run, which a few of them say little about.
    """
    doubt = 1 - confidence + 1e-12

    def too_many(failures: int) -> bool:
        broken = break_probability(failures, n, level)
        if horizon is not None:
            broken = max(broken, break_probability(failures, n, level, horizon))
        return broken > doubt

    return bisect_left(range(n), True, key=too_many) - 1


def prediction_level(level: float, horizon: int, confidence: float) -> float:
    """The largest long-run rate at which more than ``level`` of ``horizon`` requests fail with probability
    ``1 - confidence`` at most."""
    from scipy.special import betaincinv  # noqa: PLC0415

    allowed = math.floor(level * horizon + 1e-9)
    return 1.0 if allowed >= horizon else float(betaincinv(allowed + 1, horizon - allowed, 1 - confidence))


def betting_gains(weights: Floats, level: float, confidence: float) -> tuple[Floats, Floats]:
    """What a bet that fewer than ``level`` fail earns by each example: logarithms where it did not fail, and
    where it did, (n,) each.

    While the weighted rate of failures is ``level`` or more, no bet makes money on average, so the whole
    sum reaches ``-log(1 - confidence)`` with probability ``1 - confidence`` at most (Waudby-Smith and Ramdas
    2020, "Estimating means of bounded random variables by betting", arXiv 2010.09686). The stake is the
    paper's for a sample of known size; it looks at the weights alone, never at the outcomes, so the sum only
    falls as more fail. The rate is ``E[weight * failed] / E[weight]``: weights need no normalising.
    """
    doubt, most = 1 - confidence, float(weights.max(initial=0.0))
    variance = level * (1 - level) * float((weights**2).sum())
    stake = min(math.sqrt(-2 * math.log(doubt) / max(variance, 1e-300)), 0.9 / (max(most, 1e-300) * (1 - level)))
    return np.log1p(stake * weights * level), np.log1p(-stake * weights * (1 - level))


def betting_upper(failed: npt.NDArray[np.bool_], weights: Floats, confidence: float) -> float:
    """The one-sided upper bound on the weighted rate of failures that betting gives; both (n,).

    The lowest rate, to within 1e-4, that the bet against it refutes at ``confidence``; 1 where none is.
    """
    low, high = 0.0, 1.0
    while high - low > 1e-4:
        level = (low + high) / 2
        kept, lost = betting_gains(weights, level, confidence)
        refuted = float(np.where(failed, lost, kept).sum()) >= -math.log(1 - confidence)
        low, high = (low, level) if refuted else (level, high)
    return high


class EProcess:
    """The wealth of a gambler who bets that the mean of weighted losses is on one side of ``level``.

    While it is not (the null hypothesis), no strategy makes money on average, so that wealth ever reaches
    ``1 / doubt`` with probability ``doubt`` at most, whenever one looks (Ville 1939). It starts at 1, split
    evenly over constant stakes, of which the best soon leads (Waudby-Smith and Ramdas 2020, "Estimating
    means of bounded random variables by betting", arXiv 2010.09686). The mean is ``E[weight * loss] /
    E[weight]``, so that inverse propensities need no normalising.

    Args:
        level: one, or several, each with a gambler of its own; in (0, 1). Those at which the wealth stays
            below ``1 / doubt`` are a confidence sequence for the mean.
        above: bets that the mean is above the level; otherwise below.
        most_weight: the largest weight that can come.
    """

    def __init__(self, level: npt.ArrayLike, *, above: bool, most_weight: float = 1.0) -> None:
        self._level = np.asarray(level, np.float64)[..., None]  # (*shape, 1)
        self._most = most_weight
        self._sign = 1.0 if above else -1.0
        worst = self._level if above else 1 - self._level
        self._stakes = np.asarray(BETS) / (worst * most_weight)  # (*shape, bets)
        self._log_wealth = np.zeros_like(self._stakes)

    def update(self, loss: float, weight: float = 1.0) -> None:
        """Plays one round. ``loss`` in [0, 1]. Raises ValueError where either is out of range."""
        if not (0 <= loss <= 1 and 0 <= weight <= self._most):
            raise ValueError(f"loss {loss:g} of weight {weight:g}: not in [0, 1] and [0, {self._most:g}]")
        self._log_wealth += np.log1p(self._stakes * (self._sign * weight * (loss - self._level)))

    @property
    def value(self) -> Floats:
        """The wealth now: the shape of ``level``."""
        return np.asarray(np.exp(self.log_value))

    @property
    def log_value(self) -> Floats:
        """The wealth's natural logarithm, which does not overflow: the shape of ``level``."""
        most = self._log_wealth.max(axis=-1)
        return np.asarray(most + np.log(np.exp(self._log_wealth - most[..., None]).mean(axis=-1)))


def wilson_interval(successes: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """The two-sided score interval (Wilson 1927): for showing a rate, not for certifying one.

    Takes effective counts too, which weighted audits give; (0, 1) where nothing was seen.
    """
    from statistics import NormalDist  # noqa: PLC0415

    if n <= 0:
        return 0.0, 1.0
    z, p = NormalDist().inv_cdf(0.5 + confidence / 2), successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)
