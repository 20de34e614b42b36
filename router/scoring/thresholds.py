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
    values = np.asarray(scores, np.float64)
    if len(values) == 0:
        return fixed_grid(steps)
    return np.unique(np.append(np.quantile(values, np.linspace(1, 0, steps)), 0.0))[::-1]


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
    final = _final(route_scores, accept_scores, route)
    wrong = np.sort(final[~np.asarray(acceptable, np.bool_)])
    candidates = np.sort(np.asarray(fixed_grid() if grid is None else grid, np.float64))[::-1]
    passed = NEVER
    for candidate in candidates.tolist():
        failures = len(wrong) - int(np.searchsorted(wrong, candidate))
        if clopper_pearson_upper(failures, len(final), confidence) > 1 - target:
            break
        passed = candidate
    if passed == NEVER:
        found = Thresholds(route=NEVER, accept=NEVER)
    elif accept_scores is None:
        found = Thresholds(route=passed, accept=0.0)
    else:
        found = Thresholds(route=route, accept=passed)
    return with_evidence(
        found, route_scores, accept_scores, acceptable, target=target, confidence=confidence, method=METHOD
    )


def with_evidence(
    thresholds: Thresholds,
    route_scores: npt.ArrayLike,
    accept_scores: npt.ArrayLike | None,
    acceptable: npt.ArrayLike,
    *,
    target: float,
    confidence: float,
    method: str,
) -> Thresholds:
    """The thresholds with what they do to these examples, all arrays (n,): served, wrong, and the bound."""
    final = _final(route_scores, accept_scores, thresholds.route)
    served = final >= (thresholds.route if accept_scores is None else thresholds.accept)
    unacceptable = int((served & ~np.asarray(acceptable, np.bool_)).sum())
    evidence = Evidence(
        target=target,
        confidence=confidence,
        examples=len(final),
        served=int(served.sum()),
        unacceptable=unacceptable,
        risk_bound=clopper_pearson_upper(unacceptable, len(final), confidence),
        method=method,
    )
    return thresholds.model_copy(update={"evidence": evidence})


def _final(route_scores: npt.ArrayLike, accept_scores: npt.ArrayLike | None, route: float) -> Floats:
    """The score that decides in the end, -1 for what the student is not even asked: float64, (n,)."""
    scores = np.asarray(route_scores, np.float64)
    return np.where(scores >= route, scores if accept_scores is None else np.asarray(accept_scores), -1.0)


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
