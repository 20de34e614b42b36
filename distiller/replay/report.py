"""A policy replayed on one bundle's traffic: its figures, beside what they must be measured against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distiller.replay.plans import Plan, Way, oracle_sample, random_sample, sample_of
from distiller.replay.traffic import Traffic
from router.contracts.bundles import NEVER, Thresholds
from router.errors import StoreError
from router.policy.objective import Parity
from router.policy.policy import AuditPart, Policy
from router.routing.decision import route_threshold
from router.scoring.statistics.estimates import AuditSample, Interval, figures
from router.scoring.statistics.thresholds import for_parity

Floats = npt.NDArray[np.float64]
STEPS = 100
USUAL_PARITY = 0.95


@dataclass(frozen=True, slots=True)
class Forecast:
    """One way to route, with its figures: in the long run, over the next requests, and by audits alone."""

    name: str
    plan: Plan | None
    lasting: Mapping[str, Interval]
    coming: Mapping[str, Interval]
    by_audits: Mapping[str, Interval]


@dataclass(frozen=True, slots=True)
class Point:
    """One threshold of a sweep."""

    threshold: float
    lasting: Mapping[str, Interval]
    coming: Mapping[str, Interval]


@dataclass(frozen=True, slots=True)
class Choice:
    """The loosest threshold of one way that holds the target; ``plan`` is None where none does."""

    way: Way
    plan: Plan | None
    figures: Mapping[str, Interval]


@dataclass(frozen=True, slots=True)
class Replay:
    """All that is shown. ``target`` is the parity that ``choices`` hold: certified at ``confidence``, or
    None for "as good as the policy is now by estimate"."""

    traffic: Traffic
    policy: Policy
    ahead: int
    policies: list[Forecast]
    baselines: list[Forecast]
    sweeps: dict[Way, list[Point]]
    target: float
    confidence: float | None
    choices: list[Choice]

    @property
    def cheapest(self) -> Choice | None:
        """The choice that costs least by estimate."""
        held = [c for c in self.choices if c.plan is not None]
        return min(held, key=lambda c: c.figures["cost"].estimate or 0.0, default=None)


def replay(traffic: Traffic, policy: Policy, thresholds: Thresholds | None, *, ahead: int) -> Replay:
    """Replays the policy, the baselines at its share, and every threshold of every way.

    Raises:
        StoreError: the policy's objective cannot be replayed on this log; the message says why.
    """
    mine = outlook_of(policy.name, traffic, policy, thresholds, ahead=ahead)
    share = mine.lasting["share"].estimate or 0.0
    audit = policy.audit
    never, always = Plan(NEVER), Plan(0.0)
    baselines = [
        _outlook("random at its share", None, random_sample(traffic, share, audit), ahead),
        _outlook("always student", always, sample_of(traffic, always, _unaudited(policy)), ahead),
        _outlook("always teacher", never, sample_of(traffic, never, _unaudited(policy)), ahead),
        _perfect(_outlook("oracle", None, oracle_sample(traffic), ahead)),
    ]
    ways = [*Way] if traffic.scored_answers else [Way.ROUTING]
    goal, plan = policy.objective.floor, mine.plan or never
    named = {w: [plan.route if plan.accept is None else plan.accept] for w in ways}
    if goal is not None:
        named = {w: [*found, certified(traffic, w, goal).route] for w, found in named.items()}
    sweeps = {way: sweep(traffic, way, policy, ahead, also=named[way]) for way in ways}
    target = goal.at_least if goal else mine.lasting["parity"].estimate or USUAL_PARITY
    choices = [_choice(traffic, way, policy, sweeps[way], target) for way in ways]
    confidence = goal.confidence if goal else None
    return Replay(traffic, policy, ahead, [mine], baselines, sweeps, target, confidence, choices)


def outlook_of(name: str, traffic: Traffic, policy: Policy, thresholds: Thresholds | None, *, ahead: int) -> Forecast:
    """One policy's figures on the traffic, which must be read for it."""
    plan = plan_of(policy, thresholds, traffic)
    return _outlook(name, plan, sample_of(traffic, plan, policy.audit), ahead)


def plan_of(policy: Policy, thresholds: Thresholds | None, traffic: Traffic) -> Plan:
    """The thresholds that the policy's objective comes to on this traffic.

    A parity floor has the bundle's, where they were certified for that floor, else those that the log's own
    audits certify; a share is the scores' quantile; a budget is what the teacher's price leaves.
    """
    goal, way = policy.objective, Way.of(policy.accept) if traffic.scored_answers else Way.ROUTING
    if goal.fixed is not None:
        return Plan.at(way, goal.fixed)
    if goal.share is not None:
        return Plan(share_threshold(traffic, goal.share))
    if goal.cap is not None:
        return Plan(paced_threshold(traffic, float(goal.cap)))
    assert goal.floor is not None  # one of the four
    evidence = thresholds.evidence if thresholds else None
    if thresholds and evidence and (evidence.target, evidence.confidence, evidence.over) == _promised(goal.floor):
        route = route_threshold(policy, thresholds)
        held = way is not Way.ROUTING and thresholds.accept <= 1
        return Plan(NEVER if route is None else route, thresholds.accept if held else None)
    return Plan.at(way, certified(traffic, way, goal.floor).route)


def _promised(goal: Parity) -> tuple[float, float, int | None]:
    return goal.at_least, goal.confidence, goal.over_requests


def certified(traffic: Traffic, way: Way, goal: Parity) -> Thresholds:
    """The loosest threshold that the log's audits certify for the floor; ``route`` holds it, evidence with it."""
    audited = traffic.audited
    return for_parity(
        final_scores(traffic, way)[audited],
        None,
        traffic.acceptable[audited],
        goal.at_least,
        goal.confidence,
        over=goal.over_requests,
        weights=1 / traffic.propensity[audited],
    )


def final_scores(traffic: Traffic, way: Way) -> Floats:
    """What a threshold of that way is compared with in the end, (n,): -1 for what never reaches the student,
    2 for what always does, NaN where the student's answer would have to be known and is not."""
    looks = {
        Way.ROUTING: traffic.score,
        Way.CASCADE: traffic.accept,
        Way.BOTH: np.minimum(traffic.score, traffic.accept),
    }
    return np.where(traffic.to_teacher, -1.0, np.where(traffic.to_student, 2.0, looks[way]))


def share_threshold(traffic: Traffic, share: float) -> float:
    """The score from which on ``share`` of all requests lie."""
    if share <= 0:
        return NEVER
    return max(0.0, float(np.quantile(final_scores(traffic, Way.ROUTING), 1 - share)))


def paced_threshold(traffic: Traffic, usd_per_day: float) -> float:
    """The score below which a day's money pays for the teacher's answers, as pacing spends it.

    Raises:
        StoreError: the log is too short to tell a day's spend.
    """
    _tells_a_day(traffic)
    free = ~traffic.to_teacher & ~traffic.to_student
    left = usd_per_day * traffic.days - float(traffic.teacher_seen[traffic.to_teacher].sum())
    order = np.argsort(traffic.score[free], kind="stable")
    paid = int(np.searchsorted(np.cumsum(traffic.teacher_seen[free][order]), left, side="right"))
    return float(traffic.score[free][order][paid]) if paid < len(order) else NEVER


def _tells_a_day(traffic: Traffic) -> None:
    if traffic.days * 24 < 1:
        raise StoreError(
            f"the log spans {traffic.days * 1440:.0f} minutes: a day's spend cannot be told from less than an hour"
        )


def budget_threshold(traffic: Traffic, policy: Policy, way: Way, usd_per_day: float) -> float:
    """The highest threshold, so the best quality, at which a day of this traffic costs no more than the budget.

    Raises:
        StoreError: the log is too short to tell a day's spend, or even the lowest threshold costs more.
    """
    _tells_a_day(traffic)
    cost = 0.0
    for threshold in candidates(traffic, way)[::-1]:
        sample = sample_of(traffic, Plan.at(way, threshold), policy.audit)
        cost = (figures(sample)["cost"].estimate or 0.0) * traffic.requests_per_day
        if cost <= usd_per_day:
            return threshold
    raise StoreError(
        f"{usd_per_day:g} USD a day cannot be met: even with every request at the student this traffic "
        f"({traffic.requests_per_day:.0f} requests a day) costs about {cost:.2f} USD a day"
    )


def candidates(traffic: Traffic, way: Way) -> list[float]:
    """Thresholds worth looking at, ascending: even steps, quantiles of the scores, and never."""
    looks = final_scores(traffic, way)
    inside = looks[(looks >= 0) & (looks <= 1)]
    quantiles = np.quantile(inside, np.linspace(0, 1, STEPS // 2 + 1)) if len(inside) else np.zeros(1)
    steps = np.linspace(0, 1, STEPS // 2 + 1)
    return [*np.unique(np.round(np.concatenate([quantiles, steps]), 4)).tolist(), NEVER]


def sweep(traffic: Traffic, way: Way, policy: Policy, ahead: int, *, also: Sequence[float] = ()) -> list[Point]:
    """The way's figures at every candidate threshold and at those named ``also``, ascending."""
    points = []
    for threshold in sorted({*candidates(traffic, way), *(t for t in also if t <= 1)}):
        sample = sample_of(traffic, Plan.at(way, threshold), policy.audit)
        points.append(Point(threshold, figures(sample), figures(sample, ahead=ahead)))
    return points


def _choice(traffic: Traffic, way: Way, policy: Policy, points: Sequence[Point], target: float) -> Choice:
    goal = policy.objective.floor
    if goal is not None:
        threshold = certified(traffic, way, goal).route
    else:
        held = [p.threshold for p in points if (p.lasting["parity"].estimate or 0.0) >= target]
        threshold = min(held, default=NEVER)
    plan = Plan.at(way, threshold)
    found = figures(sample_of(traffic, plan, policy.audit))
    return Choice(way, None if threshold > 1 else plan, found)


def _outlook(name: str, plan: Plan | None, sample: AuditSample, ahead: int) -> Forecast:
    return Forecast(name, plan, figures(sample), figures(sample, ahead=ahead), figures(sample, robust=False))


def _perfect(outlook: Forecast) -> Forecast:
    """The oracle's quality is no estimate."""
    exact = {"parity": Interval(1.0, 1.0, 1.0), "risk": Interval(0.0, 0.0, 0.0)}
    parts = (outlook.lasting, outlook.coming, outlook.by_audits)
    return Forecast(outlook.name, None, *({**figures, **exact} for figures in parts))


def _unaudited(policy: Policy) -> AuditPart:
    """Who never chooses has nothing to audit or explore."""
    return policy.audit.model_copy(update={"rate": 0.0, "explore": 0.0})
