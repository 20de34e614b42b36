"""What a log's audits tell of a policy, each figure with an interval: parity, selective risk, share, cost, saving.

Two estimators, both right whatever was decided, since the audit's draw never looks at the request. By
inverse propensity (Hajek 1971) each audit counts for the 1/propensity requests that it stands for. The
doubly robust one (Robins, Rotnitzky and Zhao 1994) takes a model's guess for every logged request and
corrects it by what the guess missed on the audited: where little is guessed wrongly it is much tighter,
and a bad model only widens it.

Intervals: a rate's is exact (Clopper and Pearson 1934) on the effective number of audits, since parity is
near 1 and failures are few, where the normal one is far too narrow; means of money have Student's, from the
influence values. Products and differences of the two are bounded by recovering their variances from the
limits (MOVER, Zou and Donner 2008), so that a lopsided interval stays lopsided. Everything here is about
one bundle: another one's audits say nothing about this one, and no function takes two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

FIGURES = ("share", "parity", "risk", "cost", "alone", "saving", "saved_share", "cost_per_resolved")
"""What ``figures`` tells. ``cost``, ``alone`` (the teacher alone), ``saving`` and ``cost_per_resolved`` are US
dollars a request; ``risk`` is the selective risk; ``saved_share`` is the saving over ``alone``."""
_PSEUDO = (1.0, 1.0, 0.0, 0.0)
"""Two failures and two successes, as Agresti and Coull (1998) add, before a model's gain is believed."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its limits; ``estimate`` is None where nothing was audited that could tell it."""

    estimate: float | None
    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Whether ``value`` lies inside, up to rounding."""
        slack = 1e-9 * max(1.0, abs(value))
        return bool(self.low - slack <= value <= self.high + slack)


UNKNOWN = Interval(None, 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class AuditSample:
    """One policy's outcomes on logged requests, all arrays (n,).

    Outcomes are true where ``audited`` (elsewhere they are not looked at), the ``guess`` is the model's, made
    from what is known of every request whether or not it was audited: anything else would bias it.

    Attributes:
        served, guess_served: whether the student's answer reaches the client, as a probability.
        bad, guess_bad: whether that answer would be unacceptable, given that it does.
        cost, guess_cost: US dollars; ``alone``, ``guess_alone``: what the teacher alone costs.
        noise: variance of the cost, USD squared, that drawing audits and exploration adds.
        audited: an audit gave a verdict; ``propensity``: the probability of its draw, above 0 there.
    """

    served: Floats
    guess_served: Floats
    bad: Floats
    guess_bad: Floats
    cost: Floats
    guess_cost: Floats
    alone: Floats
    guess_alone: Floats
    noise: Floats
    audited: Bools
    propensity: Floats


def exact_interval(rate: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """The two-sided exact interval of a rate seen on ``n`` effective requests; (0, 1) where ``n`` is 0.

    Effective counts need not be whole: the limits are quantiles of beta distributions either way.
    """
    from scipy.special import betaincinv

    if n <= 0:
        return 0.0, 1.0
    hits, tail = min(max(rate, 0.0), 1.0) * n, (1 - confidence) / 2
    low = float(betaincinv(hits, n - hits + 1, tail)) if hits > 0 else 0.0
    high = float(betaincinv(hits + 1, n - hits, 1 - tail)) if hits < n else 1.0
    return low, high


def weighted_rate(hits: npt.ArrayLike, propensity: npt.ArrayLike, confidence: float = 0.95) -> Interval:
    """A rate over all traffic from a sample drawn with known propensities; both arguments (n,).

    Hajek's ratio; the interval is exact on Kish's effective number (1965). At one propensity that is
    hits / n and its Clopper-Pearson interval.
    """
    found, drawn = np.asarray(hits, np.float64), np.asarray(propensity, np.float64)
    if len(found) == 0:
        return UNKNOWN
    weights = _weights(drawn)
    rate = float(weights @ found / weights.sum())
    return Interval(rate, *exact_interval(rate, _kish(weights), confidence))


def figures(
    sample: AuditSample, *, robust: bool = True, ahead: int | None = None, confidence: float = 0.95
) -> Mapping[str, Interval]:
    """Every one of ``FIGURES``, doubly robust or by the audits alone (inverse propensity).

    With ``ahead`` the intervals are of what the next so many requests will give, if traffic stays as it
    was: their own chance comes on top of what the log leaves open. Without, of the long run.
    """
    audits = int(sample.audited.sum())
    means = _means(sample, robust)
    spread = _spread(sample) / ahead if ahead else np.zeros((3, 3))
    reach = _student_t(audits, confidence) if means.estimated else _normal(confidence)
    share = _clipped(_normal_interval(means, (1, 0, 0), spread, reach))
    risk = _risk(sample, robust, confidence)
    coming = ahead * (share.estimate or 0.0) if ahead else None
    lost = _lost(share, risk, _normal(confidence), ahead)
    total = means.value
    found = {
        "share": share,
        "risk": _ahead(risk, coming, _normal(confidence)),
        "parity": _complement(lost),
        "cost": _normal_interval(means, (0, 1, 0), spread, reach),
        "alone": _normal_interval(means, (0, 0, 1), spread, reach),
        "saving": _normal_interval(means, (0, -1, 1), spread, reach),
    }
    gradient = (0, -1 / total[2], total[1] / total[2] ** 2) if total[2] > 0 else (0, 0, 0)
    found["saved_share"] = _around(means, 1 - total[1] / total[2] if total[2] > 0 else 0.0, gradient, spread, reach)
    found["cost_per_resolved"] = _quotient(found["cost"], found["parity"])
    return found


@dataclass(frozen=True, slots=True)
class _Means:
    """(share, cost, alone): float64, (3,); ``error``: covariance of that estimate, (3, 3)."""

    value: Floats
    error: Floats
    estimated: bool


def _means(sample: AuditSample, robust: bool) -> _Means:
    truth = np.stack([sample.served, sample.cost, sample.alone], axis=1)  # (n, 3)
    guess = np.stack([sample.guess_served, sample.guess_cost, sample.guess_alone], axis=1)
    audited, n = sample.audited, len(sample.audited)
    weights = _weights(sample.propensity[audited])
    if len(weights) == 0:
        return _Means(guess.mean(axis=0), np.cov(guess.T, ddof=0) / max(1, n), False)
    if not robust:
        value = weights @ truth[audited] / weights.sum()
        influence = (truth[audited] - value) * weights[:, None] / weights.sum()
        return _Means(value, _inflated(influence), True)
    missed = truth[audited] - guess[audited]
    offset = weights @ missed / weights.sum()
    influence = (guess - guess.mean(axis=0)) / n
    influence[audited] += (missed - offset) * weights[:, None] / weights.sum()
    return _Means(guess.mean(axis=0) + offset, _inflated(influence), True)


def _inflated(influence: Floats) -> Floats:
    n = len(influence)
    return np.asarray(influence.T @ influence * (n / max(1, n - 1)))


def _spread(sample: AuditSample) -> Floats:
    """Covariance of one request's (served, cost, alone): what is guessed of it, and around the guess. (3, 3)"""
    guess = np.stack([sample.guess_served, sample.guess_cost, sample.guess_alone], axis=1)
    covariance = np.cov(guess.T, ddof=0).reshape(3, 3)
    weights = _weights(sample.propensity[sample.audited])
    if len(weights) > 1:
        truth = np.stack([sample.served, sample.cost, sample.alone], axis=1)[sample.audited]
        missed = truth - guess[sample.audited]
        covariance = covariance + np.cov(missed.T, aweights=weights, ddof=0)
    share = float(sample.guess_served.mean())
    covariance[0, 0] = max(covariance[0, 0], share * (1 - share))
    covariance[1, 1] += float(sample.noise.mean())
    return np.asarray(covariance)


def _risk(sample: AuditSample, robust: bool, confidence: float) -> Interval:
    """Unacceptable among what the student serves: exact on the effective number of audits of such requests.

    How much a model's guess is worth is the ratio of the variances without and with it, taken with two
    failures and two successes added: of a handful of audits without a failure it is not believed.
    """
    among = sample.audited
    weights, served = _weights(sample.propensity[among]), sample.served[among]
    stands = float(weights @ served)
    if stands <= 0:
        return UNKNOWN
    bad = sample.bad[among]
    plain = float(weights * served @ bad) / stands
    effective = stands**2 / float(weights**2 @ served**2)
    if not robust:
        return Interval(plain, *exact_interval(plain, effective, confidence))
    reached = max(float(sample.guess_served.sum()), 1e-9)
    overall = float(sample.guess_served @ sample.guess_bad) / reached
    missed = served * (bad - overall) - sample.guess_served[among] * (sample.guess_bad[among] - overall)
    offset = float(weights @ missed) / stands
    rate = min(max(overall + offset, 0.0), 1.0)
    usual = weights / (stands / served.sum())
    pseudo = np.array(_PSEUDO)
    without = float(usual**2 @ (served * (bad - plain)) ** 2) + float(((pseudo - plain) ** 2).sum())
    left = float(usual**2 @ (missed - offset * served) ** 2) + float(((pseudo - overall) ** 2).sum())
    guessed = float(sample.guess_served @ (sample.guess_bad - overall) ** 2) / reached
    gain = without / (left + guessed * float(served.sum()) ** 2 / reached)
    return Interval(rate, *exact_interval(rate, effective * gain, confidence))


def _lost(share: Interval, risk: Interval, reach: float, ahead: int | None) -> Interval:
    """Served and unacceptable, over all requests: share times risk, each limit from both sides' limits."""
    served = share.estimate or 0.0
    if risk.estimate is None:
        return Interval(0.0 if served == 0 else None, 0.0, share.high)
    lost = served * risk.estimate
    chance = [reach**2 * p * (1 - p) / ahead if ahead else 0.0 for p in (served * risk.low, served * risk.high)]
    down = math.sqrt((served * (risk.estimate - risk.low)) ** 2 + _own(risk.estimate, share, down=True) + chance[0])
    up = math.sqrt((served * (risk.high - risk.estimate)) ** 2 + _own(risk.estimate, share, down=False) + chance[1])
    return Interval(lost, max(0.0, lost - down), min(1.0, lost + up))


def _own(risk: float, share: Interval, *, down: bool) -> float:
    served = share.estimate or 0.0
    return (risk * (served - share.low if down else share.high - served)) ** 2


def _ahead(rate: Interval, coming: float | None, reach: float) -> Interval:
    """A rate's limits over the next ``coming`` requests that it is a rate of; unchanged in the long run."""
    if coming is None or rate.estimate is None:
        return rate
    if coming <= 0:
        return UNKNOWN
    down, up = (reach**2 * p * (1 - p) / coming for p in (rate.low, rate.high))
    low = rate.estimate - math.sqrt((rate.estimate - rate.low) ** 2 + down)
    high = rate.estimate + math.sqrt((rate.high - rate.estimate) ** 2 + up)
    return Interval(rate.estimate, max(0.0, low), min(1.0, high))


def _complement(rate: Interval) -> Interval:
    return Interval(None if rate.estimate is None else 1 - rate.estimate, 1 - rate.high, 1 - rate.low)


def _quotient(cost: Interval, resolved: Interval) -> Interval:
    """Cost over the share resolved; limits by MOVER in relative terms."""
    if cost.estimate is None or not resolved.estimate or cost.estimate <= 0:
        return Interval(None, 0.0, math.inf)
    value = cost.estimate / resolved.estimate
    down = math.hypot((cost.estimate - cost.low) / cost.estimate, (resolved.high - resolved.estimate) / resolved.high)
    worst = max(resolved.low, 1e-9)
    up = math.hypot((cost.high - cost.estimate) / cost.estimate, (resolved.estimate - worst) / worst)
    return Interval(value, max(0.0, value * (1 - down)), value * (1 + up))


def _normal_interval(means: _Means, gradient: Sequence[float], spread: Floats, reach: float) -> Interval:
    return _around(means, float(np.dot(gradient, means.value)), gradient, spread, reach)


def _around(means: _Means, value: float, gradient: Sequence[float], spread: Floats, reach: float) -> Interval:
    """By the delta method: ``gradient`` (3,) of the figure in (share, cost, alone)."""
    g = np.asarray(gradient, np.float64)
    half = reach * math.sqrt(max(0.0, float(g @ (means.error + spread) @ g)))
    return Interval(value, value - half, value + half)


def _clipped(rate: Interval) -> Interval:
    estimate = None if rate.estimate is None else min(max(rate.estimate, 0.0), 1.0)
    return Interval(estimate, max(0.0, rate.low), min(1.0, rate.high))


def _normal(confidence: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(0.5 + confidence / 2)


def _student_t(audits: int, confidence: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(max(1, audits - 1), 0.5 + confidence / 2))


def _weights(propensity: Floats) -> Floats:
    """How many requests each audit stands for; one whose propensity was not recorded stands for itself."""
    return np.divide(1.0, propensity, out=np.ones_like(propensity), where=propensity > 0)


def _kish(weights: Floats) -> float:
    return float(weights.sum() ** 2 / (weights**2).sum())
