"""Bounds on a rate of failures: exact from counts, by betting where examples weigh differently."""

from __future__ import annotations

import math
from bisect import bisect_left

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_NODES = 512
"""Quantiles that an average over a distribution is taken at."""
_HALVINGS = 50


def clopper_pearson_upper(failures: int, n: int, confidence: float) -> float:
    """The one-sided exact upper bound on a rate (Clopper and Pearson 1934); 1 where nothing was seen."""
    from scipy.special import betaincinv

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
    from scipy import stats

    if failures >= n:
        return 1.0
    if horizon is None:
        return float(stats.binom.cdf(failures, n, level))
    allowed = math.floor(level * horizon + 1e-9)  # 0.05 * 20 is one failure, whatever its last binary digit
    if allowed >= horizon:
        return 0.0
    return float(stats.hypergeom.cdf(failures, n + horizon, failures + 1 + allowed, n))


def running_break_probability(failures: int, n: int, level: float, horizon: int) -> float:
    """The chance that whoever keeps count of the next requests ever finds the floor broken: at most this.

    Broken is where more than ``level`` of all requests since then have failed, at any count of ``horizon`` or more;
    so this covers ``break_probability`` over the horizon and in the long run. The worst case's rate of failures is
    Beta-distributed, as there. At a rate r below ``level``, either the first ``horizon`` requests break the floor, or
    they end below it by u failures and the rest make up for that, which happens with probability exp(-t u) at
    most, t the walk's adjustment coefficient (Lundberg 1903; Asmussen and Albrecher 2010, "Ruin Probabilities",
    ch. IV). Summed over u that is the tail of a binomial at the conjugate rate r exp(t (1 - level)) > level.
    """
    if failures >= n:
        return 1.0
    from scipy.special import betaincinv

    quantiles = (np.arange(_NODES) + 0.5) / _NODES
    return float(_ever_broken(betaincinv(failures + 1, n - failures, quantiles), level, horizon).mean())


def _ever_broken(rates: Floats, level: float, horizon: int) -> Floats:
    """The chance by rate of failures, (n,), that more than ``level`` have failed at a count from ``horizon`` on."""
    from scipy.stats import binom

    allowed = math.floor(level * horizon + 1e-9)  # 0.05 * 20 is one failure, whatever its last binary digit
    if allowed >= horizon:
        return np.zeros(len(rates))
    at_once = binom.sf(allowed, horizon, rates)
    later = binom.cdf(allowed, horizon, _conjugate(np.minimum(rates, level), level))
    return np.where(rates < level, np.minimum(at_once + later, 1.0), 1.0)


def _conjugate(rates: Floats, level: float) -> Floats:
    """The rates above ``level`` at which the count of failures drifts up just as fast, by likelihood, as it drifts
    down at these: r exp(t (1 - level)) where r exp(t (1 - level)) + (1 - r) exp(-t level) = 1, t > 0. All (n,).

    By bisection on the conjugate itself: of the pair r, s both have the same r**level * (1 - r)**(1 - level).
    """

    def likelihood(rate: Floats) -> Floats:
        return np.asarray(level * np.log(rate) + (1 - level) * np.log1p(-rate))

    rates = np.clip(rates, 1e-12, None)
    wanted, low, high = likelihood(rates), np.full(len(rates), level), np.full(len(rates), 1 - 1e-12)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        below = likelihood(middle) > wanted
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return low


def most_failures(n: int, level: float, confidence: float, horizon: int | None = None) -> int:
    """How many of a uniform sample of ``n`` may fail among those that a threshold lets in, so that the floor
    breaks with probability ``1 - confidence`` at most; -1 where even none is too many.

    In the long run (``break_probability``), or with a ``horizon`` at every count from there on, however often one
    counts (``running_break_probability``).
    """
    doubt = 1 - confidence + 1e-12

    def too_many(failures: int) -> bool:
        if break_probability(failures, n, level) > doubt:
            return True
        return horizon is not None and running_break_probability(failures, n, level, horizon) > doubt

    return bisect_left(range(n), True, key=too_many) - 1


def prediction_level(level: float, horizon: int, confidence: float) -> float:
    """The largest long-run rate at which more than ``level`` have failed at some count of ``horizon`` or more with
    probability ``1 - confidence`` at most."""
    if math.floor(level * horizon + 1e-9) >= horizon:
        return 1.0
    low, high = 0.0, level
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        seldom = _ever_broken(np.array([middle]), level, horizon)[0] <= 1 - confidence
        low, high = (middle, high) if seldom else (low, middle)
    return low


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


def wilson_interval(successes: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """The two-sided score interval (Wilson 1927): for showing a rate, not for certifying one.

    Takes effective counts too, which weighted audits give; (0, 1) where nothing was seen.
    """
    from statistics import NormalDist

    if n <= 0:
        return 0.0, 1.0
    z, p = NormalDist().inv_cdf(0.5 + confidence / 2), successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)
