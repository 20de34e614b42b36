"""Which threshold meets a target on logged traffic, and why."""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self, cast

from distiller.replay.outlook import MOST_AUDITS, outlook
from distiller.replay.plans import Plan, Way, sample_of
from distiller.replay.report import budget_threshold, candidates, certified, share_threshold
from distiller.replay.traffic import Traffic
from router.errors import LocumError, StoreError
from router.policy.objective import Parity
from router.policy.policy import Policy
from router.scoring.statistics.estimates import Interval, figures
from router.scoring.statistics.risk import most_failures

Aim = Literal["parity", "share", "usd_per_day"]
SCALE = 10_000
"""Thresholds are written with four decimals."""


@dataclass(frozen=True, slots=True)
class TuningTarget:
    """``parity`` and ``share`` lie between 0 and 1; ``confidence`` is a parity's."""

    aim: Aim
    value: float
    confidence: float = 0.95

    @classmethod
    def parse(cls, text: str, confidence: float = 0.95) -> Self:
        """``parity=0.95``, ``share=0.8`` or ``usd_per_day=25``. Raises LocumError for anything else."""
        aim, _, number = text.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        within = {"parity": 0 < value < 1, "share": 0 <= value <= 1, "usd_per_day": 0 <= value < math.inf}
        if not within.get(aim, False):
            raise LocumError(f"--target {text!r}: say parity=0.95, share=0.8 (between 0 and 1) or usd_per_day=25")
        if not 0.5 < confidence < 1:
            raise LocumError(f"--confidence {confidence:g}: it must lie between 0.5 and 1")
        return cls(cast(Aim, aim), value, confidence)

    def __str__(self) -> str:
        if self.aim == "parity":
            return f"parity of at least {self.value:.4g} at {self.confidence:.4g} confidence"
        return f"student share of {self.value:.4g}" if self.aim == "share" else f"at most {self.value:g} USD a day"


@dataclass(frozen=True, slots=True)
class TunedThreshold:
    """The threshold, the reason in lines, and what it is expected to give; ``outlook``, with a floor, says in lines
    what else could be promised, and what more audits would let be."""

    threshold: float
    reason: list[str]
    figures: Mapping[str, Interval]
    outlook: list[str]


def tuned(traffic: Traffic, policy: Policy, target: TuningTarget, *, today: str | None = None) -> TunedThreshold:
    """The threshold that meets the target on this traffic, used as the policy would use it.

    Raises:
        StoreError: the log cannot show that any threshold does; the message says what is missing.
    """
    way = Way.of(policy.accept)
    if way is not Way.ROUTING and not traffic.scored_answers:
        raise StoreError(
            "the policy holds answers back by their confidence, and the scorer of bundle "
            f"{traffic.bundle or 'base'} is not in this home: tune where the bundle is, or set accept.cascade to false"
        )
    seen: list[str] = []
    if target.aim == "parity":
        threshold, ground, seen = _for_parity(traffic, way, policy, target)
    elif target.aim == "share":
        threshold, ground = _for_share(traffic, policy, way, target.value), _requests(traffic)
    else:
        threshold = budget_threshold(traffic, policy, way, target.value)
        ground = _requests(traffic)
    found = figures(sample_of(traffic, Plan.at(way, threshold), policy.audit))
    if threshold > 1 or not found["share"].estimate:
        raise StoreError(
            f"no threshold is written for {target}: on this traffic, {ground}, only one that serves nobody from the "
            "student meets it, and that promises nothing"
        )
    day = today or time.strftime("%Y-%m-%d")
    reason = [f"locum tune, {day}: {target}, {ground}", _expected(found, traffic)]
    return TunedThreshold(threshold, reason, found, seen)


def _requests(traffic: Traffic) -> str:
    return f"by {len(traffic)} requests of bundle {traffic.bundle or 'base'} over {traffic.days:.1f} days"


def _for_parity(traffic: Traffic, way: Way, policy: Policy, target: TuningTarget) -> tuple[float, str, list[str]]:
    """(threshold, what it rests on, what else could be promised). From how many requests on it is promised is the
    policy's word, if it has one."""
    goal = Parity(at_least=target.value, confidence=target.confidence)
    if policy.objective.floor is not None:
        goal = goal.model_copy(update={"over_requests": policy.objective.floor.over_requests})
    over = f" over any {goal.over_requests} requests and more" if goal.over_requests else " in the long run"
    audits, floor = int(traffic.audited.sum()), f"{target}{over}"
    least = _least_audits(goal)
    if audits < least:
        raise StoreError(
            f"the log cannot show a {floor}: that takes {least} audits with a verdict even if none fails, and bundle "
            f"{traffic.bundle or 'base'} has {audits}. Wait for more, or raise audit.rate"
        )
    thresholds, seen = certified(traffic, way, goal), outlook(traffic, way, goal).lines
    evidence = thresholds.evidence
    if thresholds.route > 1 or evidence is None:
        bad = int((traffic.audited & ~traffic.acceptable).sum())
        raise StoreError(
            f"the log cannot show a {floor} at any threshold: the student failed {bad} of {audits} audits, and the "
            "best scored failures come too soon. Wait for more audits or a better student, or lower the target.\n"
            + "\n".join(seen)
        )
    ground = (
        f"{over.strip()}, by {evidence.examples} audits of bundle {traffic.bundle or 'base'}: "
        f"{evidence.unacceptable} of the {evidence.served} that the student would serve "
        f"fail, so at most {evidence.risk_bound:.2%} of all requests"
    )
    return _up(thresholds.route), ground, seen


def _least_audits(goal: Parity) -> int:
    """How many audits without a failure it takes."""
    found = range(1, MOST_AUDITS)
    enough = bisect_left(
        found, True, key=lambda n: most_failures(n, 1 - goal.at_least, goal.confidence, goal.over_requests) >= 0
    )
    return 1 + enough


def _for_share(traffic: Traffic, policy: Policy, way: Way, share: float) -> float:
    if way is Way.ROUTING:
        threshold = _down(share_threshold(traffic, share))
        reached = float((traffic.to_student | ((traffic.score >= threshold) & ~traffic.to_teacher)).mean())
    else:
        threshold, reached = 0.0, 0.0
        for threshold in reversed(candidates(traffic, way)):
            sample = sample_of(traffic, Plan.at(way, threshold), policy.audit)
            reached = figures(sample)["share"].estimate or 0.0
            if reached >= share:
                break
    if reached < share - 0.005:
        raise StoreError(
            f"a student share of {share:.4g} cannot be met: even at the lowest threshold it is {reached:.1%}, since "
            "the rest is settled for the teacher before any score (abilities, rules, conversations), or held back"
        )
    return threshold


def _expected(found: Mapping[str, Interval], traffic: Traffic) -> str:
    def said(name: str) -> str:
        interval = found[name]
        limits = f"{interval.low:.1%} to {interval.high:.1%}"
        return limits if interval.estimate is None else f"{interval.estimate:.1%} ({limits})"

    text = f"expected: student share {said('share')}, parity {said('parity')}, saved {said('saved_share')}"
    if traffic.days * 24 >= 1 and found["cost"].estimate is not None:
        text += f", {found['cost'].estimate * traffic.requests_per_day:.2f} USD a day"
    return text


def _up(threshold: float) -> float:
    """Rounded to the strict side: what was certified stays so."""
    return math.ceil(threshold * SCALE) / SCALE


def _down(threshold: float) -> float:
    return math.floor(threshold * SCALE) / SCALE
