"""Exact bounds on a rate from counts."""

from __future__ import annotations

import math


def clopper_pearson_upper(failures: int, n: int, confidence: float) -> float:
    """The one-sided exact upper bound on a rate (Clopper and Pearson 1934); 1 where nothing was seen."""
    from scipy.special import betaincinv  # noqa: PLC0415

    return 1.0 if failures >= n else float(betaincinv(failures + 1, n - failures, confidence))


def clopper_pearson_lower(successes: int, n: int, confidence: float) -> float:
    """The one-sided exact lower bound on a rate; 0 where nothing was seen."""
    return 1.0 - clopper_pearson_upper(n - successes, n, confidence)


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
