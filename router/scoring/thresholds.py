"""From scores to thresholds: certified for a parity floor, tracked online for a share.

Certifying: thresholds are tested in a fixed order, strictest first, each for "the rate of requests, over
all requests, that the student serves unacceptably is at most 1 - target" by an exact bound, and testing
stops at the first failure. Fixed-sequence testing needs no correction for the number of thresholds (Angelopoulos
et al. 2021, "Learn then Test", arXiv 2110.01052); the order must not depend on the labels.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from router.contracts.bundles import Evidence, Thresholds
from router.scoring.risk import clopper_pearson_upper

NEVER = 1.01
METHOD = "fixed-sequence, Clopper-Pearson"
WINDOW = 2000
PRIOR_SCORES = tuple(0.2 + 0.7 * i / 49 for i in range(50))
"""Scores taken as seen before any traffic: the prior's usual range, evenly. Each real one displaces one."""

Floats = npt.NDArray[np.float64]


def fixed_grid(steps: int = 200) -> Floats:
    """Candidate thresholds that depend on no data: evenly spaced in log odds from 0.999 to 0.001, then 0."""
    z = np.linspace(math.log(999), -math.log(999), steps - 1)
    return np.append(1 / (1 + np.exp(-z)), 0.0)


def grid_of(scores: npt.ArrayLike, steps: int = 200) -> Floats:
    """Candidate thresholds at quantiles of scores of *other* examples than those that will certify."""
    quantiles = np.quantile(np.asarray(scores, np.float64), np.linspace(1, 0, steps))
    return np.unique(np.append(quantiles, 0.0))[::-1]


def for_parity(
    route_scores: npt.ArrayLike,
    accept_scores: npt.ArrayLike | None,
    acceptable: npt.ArrayLike,
    target: float,
    confidence: float,
    *,
    route: float = 0.0,
    grid: npt.ArrayLike | None = None,
) -> Thresholds:
    """The loosest threshold certified for "parity is at least ``target``" at ``confidence``.

    With ``accept_scores`` it is the accept threshold, given ``route``, which must be fixed beforehand on
    other data; without, it is the route threshold, and whatever the student answers leaves. All arrays
    (n,), one entry for each request of a uniform sample of the traffic. ``grid``: candidates, fixed
    without these labels; by default ``fixed_grid``. Where not even the strictest passes, which fewer
    than 59 examples never do at 0.95 and 0.95, both thresholds are ``NEVER``.
    """
    asked = np.asarray(route_scores, np.float64) >= route
    final = np.asarray(route_scores if accept_scores is None else accept_scores, np.float64)
    final = np.where(asked, final, -1.0)
    wrong = np.sort(final[~np.asarray(acceptable, np.bool_)])
    candidates = np.sort(np.asarray(fixed_grid() if grid is None else grid, np.float64))[::-1]
    passed, bound, served = NEVER, clopper_pearson_upper(0, len(final), confidence), 0
    unacceptable = 0
    for candidate in candidates.tolist():
        failures = len(wrong) - int(np.searchsorted(wrong, candidate))
        upper = clopper_pearson_upper(failures, len(final), confidence)
        if upper > 1 - target:
            break
        passed, bound, unacceptable = candidate, upper, failures
        served = int((final >= candidate).sum())
    evidence = Evidence(
        target=target, confidence=confidence, examples=len(final), served=served,
        unacceptable=unacceptable, risk_bound=bound, method=METHOD,
    )  # fmt: skip
    if passed == NEVER:
        return Thresholds(route=NEVER, accept=NEVER, evidence=evidence)
    if accept_scores is None:
        return Thresholds(route=passed, accept=0.0, evidence=evidence)
    return Thresholds(route=route, accept=passed, evidence=evidence)


class ShareThreshold:
    """The score from which on to serve from the student so that a declared share of requests is.

    A quantile over the last ``window`` scores, which follows drifting traffic; not thread-safe. Requests
    that tie at the quantile are let in at the rate that keeps the share.
    """

    def __init__(self, prior: Sequence[float] = PRIOR_SCORES, window: int = WINDOW) -> None:
        self._window = window
        self._prior = deque(prior)
        self._recent: deque[float] = deque()
        self._ordered = sorted(prior)
        self._credit = 0.5

    def observe(self, score: float) -> None:
        """Takes note of one request's score, whatever became of the request."""
        self._recent.append(score)
        insort(self._ordered, score)
        if self._prior:
            self._forget(self._prior.popleft())
        elif len(self._recent) > self._window:
            self._forget(self._recent.popleft())

    def threshold(self, share: float) -> float:
        """The threshold for the next request: serve from the student if its score is at least this.

        Among equal scores at the quantile it alternates between letting in and keeping out.
        """
        wanted = share * len(self._ordered)
        if wanted <= 0:
            return NEVER
        value = self._ordered[-min(math.ceil(wanted), len(self._ordered))]
        first, after = bisect_left(self._ordered, value), bisect_right(self._ordered, value)
        self._credit += min(1.0, (wanted - (len(self._ordered) - after)) / (after - first))
        if self._credit >= 1:
            self._credit -= 1
            return value
        return math.nextafter(value, math.inf)

    def _forget(self, score: float) -> None:
        del self._ordered[bisect_left(self._ordered, score)]
