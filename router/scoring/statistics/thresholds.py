"""From scores to thresholds: certified for a parity floor, tracked online for a share or for a day's money.

Certifying is fixed-sequence testing (Angelopoulos et al. 2021, "Learn then Test", arXiv 2110.01052) over all
thresholds there are, strictest first: each is tested for "no more than 1 - target of the requests, over all
requests, are served by the student unacceptably", and testing stops at the first failure. Failures only grow
in number as the threshold falls, so the sequence ends just above one certain failure of the sample, and no grid
of candidates has to be chosen: what would lie between two of them is not given away.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from router.contracts.bundles import NEVER, Evidence, Thresholds
from router.scoring.statistics.risk import (
    betting_gains,
    betting_upper,
    clopper_pearson_upper,
    most_failures,
    prediction_level,
)

EXACT, BETTING = "fixed-sequence, exact", "fixed-sequence, betting"
WINDOW = 2000
PRIOR_SCORES = tuple(0.2 + 0.7 * i / 49 for i in range(50))
"""Scores taken as seen before any traffic: the prior's usual range, evenly. Each real one displaces one."""
MEMORY = 200
"""Requests over which the pace averages what a teacher's answer costs."""

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class Floor(NamedTuple):
    """At most ``level`` of the requests may be lost, at ``confidence``, over the next ``over`` or in the long run."""

    level: float
    confidence: float
    over: int | None


def fixed_grid(steps: int = 200) -> Floats:
    """Candidate thresholds that depend on no data: evenly spaced in log odds from 0.999 to 0.001, then 0."""
    z = np.linspace(math.log(999), -math.log(999), steps - 1)
    return np.append(1 / (1 + np.exp(-z)), 0.0)


def for_parity(
    route_scores: npt.ArrayLike,
    accept_scores: npt.ArrayLike | None,
    acceptable: npt.ArrayLike,
    target: float,
    confidence: float,
    *,
    over: int | None = None,
    route: float = 0.0,
    weights: npt.ArrayLike | None = None,
) -> Thresholds:
    """The loosest threshold certified for "parity is at least ``target``" at ``confidence``.

    With ``accept_scores`` it is the accept threshold, given ``route``, which must be fixed beforehand on
    other data; without, it is the route threshold, and whatever the student answers leaves. All arrays
    (n,), one entry for each request of a sample of the traffic, uniform, or with ``weights`` in proportion
    to how many requests each stands for (inverse propensities). ``over``: the promise is for the next so
    many requests together, whose own chance it then allows for; without, for the long run. Where not even
    the strictest passes, which fewer than 59 examples never do at 0.95 and 0.95, both thresholds are
    ``NEVER``.
    """
    final, good = _final(route_scores, accept_scores, route), np.asarray(acceptable, np.bool_)
    heft = np.ones(len(final)) if weights is None else np.asarray(weights, np.float64)
    floor, kept = Floor(1 - target, confidence, over), _thinned(heft)
    if _betting_tells_more(heft, kept, 1 - confidence):
        method, kept = BETTING, np.ones(len(final), np.bool_)
        passed = _by_betting(final, good, heft, floor)
    else:
        method, heft = EXACT, np.ones(len(final))
        passed = _by_counting(final[kept], good[kept], floor)
    if not (final[kept] >= passed).any():
        passed = NEVER  # what lets none of the sample in was never put to the test
    if passed == NEVER:
        found = Thresholds(route=NEVER, accept=NEVER)
    elif accept_scores is None:
        found = Thresholds(route=passed, accept=0.0)
    else:
        found = Thresholds(route=route, accept=passed)
    served = kept & (final >= passed)
    horizon = "in the long run" if over is None else f"over the next {over:,} requests"
    evidence = _evidence(served[kept], good[kept], heft[kept], confidence).model_copy(
        update={"target": target, "method": f"{method}, {horizon}", "over": over}
    )
    return found.model_copy(update={"evidence": evidence})


def _by_counting(final: Floats, good: Bools, floor: Floor) -> float:
    """Just above the first failure that would be one too many; 0 where all may be served."""
    most = most_failures(len(final), *floor)
    wrong = np.sort(final[~good & (final >= 0)])[::-1]
    if most < 0:
        return NEVER
    return float(np.nextafter(wrong[most], np.inf)) if most < len(wrong) else 0.0


def _by_betting(final: Floats, good: Bools, weights: Floats, floor: Floor) -> float:
    """Just above the first failure at which the wealth of the bet against the floor's breaking is too small.

    Over a horizon the doubt is halved: the long-run rate is certified at a level that the next requests
    exceed by chance no more often than the other half.
    """
    level, confidence, over = floor
    if over is not None:
        confidence = (1 + confidence) / 2
        level = prediction_level(level, over, confidence)
    kept, lost = betting_gains(weights, level, confidence)
    wrong = np.flatnonzero(~good & (final >= 0))
    wrong = wrong[np.argsort(-final[wrong], kind="stable")]
    wealth = kept.sum() + np.append(0.0, np.cumsum(lost[wrong] - kept[wrong]))  # logarithm, after 0, 1, ... failures
    poor = np.flatnonzero(wealth < -math.log(1 - confidence))
    if len(poor) == 0:
        return 0.0
    return float(np.nextafter(final[wrong[poor[0] - 1]], np.inf)) if poor[0] > 0 else NEVER


def _thinned(weights: Floats) -> Bools:
    """Which examples make a uniform sample: each kept in proportion to its weight, by draws fixed beforehand."""
    draws = np.random.default_rng(0).random(len(weights))
    return np.asarray(draws * weights.max(initial=0.0) < weights)


def _betting_tells_more(weights: Floats, kept: Bools, doubt: float) -> bool:
    """Whether betting on all rows is to certify more than counting the thinned ones; by the weights alone.

    Either's margin falls with the root of its sample, and betting's starts wider: it is valid at any time.
    """
    effective = weights.sum() ** 2 / max((weights**2).sum(), 1e-300)
    return bool(effective * NormalDist().inv_cdf(doubt) ** 2 > -2 * math.log(doubt) * kept.sum())


def with_evidence(
    thresholds: Thresholds,
    route_scores: npt.ArrayLike,
    accept_scores: npt.ArrayLike | None,
    acceptable: npt.ArrayLike,
    *,
    confidence: float,
    method: str,
    weights: npt.ArrayLike | None = None,
) -> Thresholds:
    """The thresholds with what they do to these examples, all arrays (n,): served, wrong, and the bound."""
    final = _final(route_scores, accept_scores, thresholds.route)
    served = final >= (thresholds.route if accept_scores is None else thresholds.accept)
    heft = np.ones(len(final)) if weights is None else np.asarray(weights, np.float64)
    evidence = _evidence(served, np.asarray(acceptable, np.bool_), heft, confidence)
    return thresholds.model_copy(update={"evidence": evidence.model_copy(update={"method": method})})


def _evidence(served: Bools, good: Bools, weights: Floats, confidence: float) -> Evidence:
    n, wrong = len(served), served & ~good
    uniform = n == 0 or bool((weights == weights[0]).all())
    return Evidence(
        target=0.0,
        confidence=confidence,
        examples=n,
        served=int(served.sum()),
        unacceptable=int(wrong.sum()),
        risk_bound=clopper_pearson_upper(int(wrong.sum()), n, confidence)
        if uniform
        else betting_upper(wrong, weights, confidence),
        method="",
        share=min(1.0, float(weights[served].sum() / weights.sum())) if n else 0.0,
    )


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


class Pace:
    """The share of the requests that the student has to serve so that a day's money lasts the day, evenly.

    What is left is divided by the time left, by the recent rate of requests and by the recent price of a
    teacher's answer. What other reasons than the score send to the teacher is paid first. An error made now is
    part of what is left, so it is spread over the rest of the day. Not thread-safe.
    """

    def __init__(self, window: int = WINDOW) -> None:
        self._arrivals: deque[float] = deque(maxlen=window)
        self._free, self._forced_usd, self._answer_usd = Mean(), Mean(), Mean()

    def observe(self, at: float) -> None:
        """Takes note of one request's arrival (seconds)."""
        self._arrivals.append(at)

    def learn(self, teacher_usd: float, *, by_score: bool, escalated: bool) -> None:
        """Takes note of what one finished request cost at the teacher, and of whether the score sent it there."""
        self._free.add(float(by_score))
        self._forced_usd.add(0.0 if by_score else teacher_usd)
        if by_score and escalated:
            self._answer_usd.add(teacher_usd)

    def student_share(self, left_usd: float, left_seconds: float) -> float:
        """From 0 to 1; 0 until it is known what an answer of the teacher costs."""
        if not self._arrivals or not self._answer_usd.value:
            return 0.0
        span = max(1.0, self._arrivals[-1] - self._arrivals[0])
        expected = max(1.0, left_seconds * len(self._arrivals) / span)
        free_usd = left_usd / expected - self._forced_usd.value
        teachers = free_usd / (self._answer_usd.value * max(self._free.value, 1 / MEMORY))
        return 1 - min(1.0, max(0.0, teachers))


class Mean:
    """The mean of the last values, ``MEMORY`` of them or so, the newest weighing most."""

    def __init__(self) -> None:
        self.value, self._n = 0.0, 0

    def add(self, value: float) -> None:
        self._n = min(MEMORY, self._n + 1)
        self.value += (value - self.value) / self._n
