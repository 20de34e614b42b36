"""A plan is a pair of thresholds; on logged traffic it gives a sample of outcomes, known or guessed."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from distiller.replay.traffic import Traffic
from router.policy.policy import AcceptPart, AuditPart
from router.scoring.statistics.estimates import AuditSample

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
LEAST_IN_BIN = 12
MOST_BINS = 20


class Way(StrEnum):
    """How the two looks are used. ``routing``: by the score alone; ``cascade``: the student is always asked,
    and its answer judged; ``both``: asked by the score, then its answer judged."""

    ROUTING = "routing"
    CASCADE = "cascade"
    BOTH = "both"

    @classmethod
    def of(cls, accept: AcceptPart) -> Way:
        """How a policy uses them."""
        if not accept.cascade:
            return cls.ROUTING
        return cls.BOTH if accept.routing else cls.CASCADE


@dataclass(frozen=True, slots=True)
class Plan:
    """Ask the student from score ``route`` on, let its answer out from probability ``accept`` on.

    A threshold above 1 is never; an ``accept`` of None holds no answer back.
    """

    route: float
    accept: float | None = None

    @classmethod
    def at(cls, way: Way, threshold: float) -> Plan:
        """The threshold where that way uses one."""
        if way is Way.ROUTING:
            return cls(threshold)
        return cls(0.0 if way is Way.CASCADE else threshold, threshold)


def sample_of(traffic: Traffic, plan: Plan, audit: AuditPart) -> AuditSample:
    """The plan's outcomes, audits and exploration of ``audit`` included in cost and share."""
    asked = traffic.to_student | ((traffic.score >= plan.route) & ~traffic.to_teacher)
    if plan.accept is None:
        everything = np.ones(len(traffic))
        return _sample(traffic, asked, everything, everything, audit)
    leaves = _leaves(traffic, plan.accept, traffic.accept, traffic.acceptable)
    guess_leaves = _leaves(traffic, plan.accept, traffic.accept_seen)
    drawn = _drawn(traffic, plan.accept)
    guess_drawn = drawn.copy()
    unseen = np.isnan(traffic.accept_seen) & ~traffic.to_student
    guess_leaves[unseen] = by_score(traffic, leaves)[unseen]
    guess_drawn[unseen] = by_score(traffic, drawn)[unseen]
    extra = drawn * traffic.student, guess_drawn * traffic.student_seen
    return _sample(traffic, asked, leaves, guess_leaves, audit, least=plan.accept, extra=extra)


def random_sample(traffic: Traffic, share: float, audit: AuditPart) -> AuditSample:
    """Outcomes of asking the student at random, so that it serves ``share`` of all; no answer is held back."""
    free = ~traffic.to_teacher
    asked = np.where(free, min(1.0, share / max(1e-9, float(free.mean()))), 0.0)
    everything = np.ones(len(traffic))
    return _sample(traffic, asked, everything, everything, audit)


def oracle_sample(traffic: Traffic) -> AuditSample:
    """Outcomes of asking the student exactly what it would answer acceptably."""
    right = np.where(traffic.to_teacher, 0.0, traffic.acceptable.astype(np.float64))
    guess = np.where(traffic.to_teacher, 0.0, traffic.guess)
    nothing = np.zeros(len(traffic))
    cost = right * traffic.student + (1 - right) * traffic.teacher
    guess_cost = guess * traffic.student_seen + (1 - guess) * traffic.teacher_seen
    return _outcomes(traffic, (right, guess), (nothing, nothing), (cost, guess_cost), nothing)


def _leaves(traffic: Traffic, least: float, accept: Floats, acceptable: Bools | None = None) -> Floats:
    """Whether an answer is let out, or how probably where only samples could lift it, as far as ``acceptable`` tells.
    What was settled for the student is never held back."""
    out: Bools = accept >= least
    found = out.astype(np.float64)
    if (third := traffic.third) is not None:
        known = ~np.isnan(third.alone) & ~np.isnan(accept)
        by_samples = np.where(third.drawn(least), third.lifted(least, acceptable), third.alone >= least)
        found[known] = by_samples[known]
    found[traffic.to_student] = 1.0
    return found


def _drawn(traffic: Traffic, least: float) -> Floats:
    """How many samples are drawn beside each answer: (n,)."""
    third = traffic.third
    if third is None:
        return np.zeros(len(traffic))
    return np.where(third.drawn(least) & ~traffic.to_student, float(third.samples), 0.0)


def by_score(traffic: Traffic, known_of: Floats) -> Floats:
    """What is to be expected of an answer by its request's score, (n,): the mean of ``known_of``, (n,), over known
    answers of like score, of whether they are let out, say.

    A guess: it only has to be made alike for audited requests and others, since what it misses on the
    audited corrects it.
    """
    known = ~np.isnan(traffic.accept)
    if not known.any():
        return np.zeros(len(traffic))
    bins = int(np.clip(known.sum() // LEAST_IN_BIN, 1, MOST_BINS))
    edges = np.quantile(traffic.guess[known], np.linspace(0, 1, bins + 1)[1:-1])
    where = np.searchsorted(edges, traffic.guess, side="right")
    total = np.bincount(where[known], known_of[known], bins)
    count = np.bincount(where[known], minlength=bins)
    mean = np.divide(total, count, out=np.full(bins, known_of[known].mean()), where=count > 0)
    return np.asarray(mean[where])


def _sample(
    traffic: Traffic,
    asked: npt.NDArray[np.generic],
    leaves: Floats,
    guess_leaves: Floats,
    audit: AuditPart,
    *,
    least: float | None = None,
    extra: tuple[Floats, Floats] | None = None,
) -> AuditSample:
    """``asked``: whether, or how probably, the student is asked; ``leaves``: whether its answer then leaves;
    ``extra``: what more than one answer of the student costs where it is asked, known and guessed."""
    explored = np.where(traffic.to_student, 0.0, audit.explore * (1 - audit.rate))
    asks = asked.astype(np.float64) * (1 - explored)
    served, guess_served = asks * leaves, asks * guess_leaves
    rate, paid, free = audit.rate, _paid(traffic, guess_served, audit), ~traffic.to_teacher
    guess_bad = 1 - (traffic.guess if least is None else np.maximum(traffic.guess, min(least, 1.0)))
    guess_teacher, teacher = guess_served * traffic.teacher_seen, served * traffic.teacher
    guess_other = paid * (guess_teacher + traffic.verdict_seen) + (1 - asks) * traffic.student_seen
    other = paid * (teacher + traffic.verdict) + (1 - asks) * traffic.student
    cost = asks * traffic.student + (1 - served) * traffic.teacher + rate * free * other
    guess_cost = asks * traffic.student_seen + (1 - guess_served) * traffic.teacher_seen + rate * free * guess_other
    noise = rate * (1 - rate) * free * guess_other**2 + explored * (1 - explored) * asked * traffic.teacher_seen**2
    if extra is not None:
        cost, guess_cost = cost + asks * extra[0], guess_cost + asks * extra[1]
    bad = (~traffic.acceptable).astype(np.float64)
    return _outcomes(traffic, (served, guess_served), (bad, guess_bad), (cost, guess_cost), noise)


def _outcomes(
    traffic: Traffic,
    served: tuple[Floats, Floats],
    bad: tuple[Floats, Floats],
    cost: tuple[Floats, Floats],
    noise: Floats,
) -> AuditSample:
    """Each pair is what is known where audited, and what is guessed of every request."""
    return AuditSample(
        served=served[0],
        guess_served=served[1],
        bad=bad[0],
        guess_bad=bad[1],
        cost=cost[0],
        guess_cost=cost[1],
        alone=traffic.teacher,
        guess_alone=traffic.teacher_seen,
        noise=noise,
        audited=traffic.audited,
        propensity=traffic.propensity,
    )


def _paid(traffic: Traffic, served: Floats, audit: AuditPart) -> float:
    """The share that the day's cap pays for of the teacher's audits and of the judge's verdicts."""
    verdicts = traffic.verdict_seen @ ~traffic.to_teacher
    wanted = Decimal(audit.rate * float(served @ traffic.teacher_seen + verdicts))
    cap = audit.usd_per_day * Decimal(max(traffic.days, 1 / 24))
    return 1.0 if wanted <= cap or wanted == 0 else float(cap / wanted)
