"""Thresholds for a student and its scorer, by the policy's objective, and the share that they let it carry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from distiller.rounds.trigger import fewest_audits
from router.contracts.bundles import NEVER, Evidence, Thresholds
from router.contracts.records import Usage
from router.policy.policy import Policy
from router.price_map import litellm_price
from router.pricing import cost_usd
from router.routing.decision import proves_tools
from router.scoring.model import Example
from router.scoring.scorer import Scorer
from router.scoring.statistics.thresholds import for_parity, with_evidence
from router.scoring.worth import worth

LEAST_WORTH = 0.10
"""Where fewer than one in ten of the student's answers would leave, asking it only costs time."""
CONFIDENCE = 0.95
"""Of the bound that is shown where the objective names none."""
MEASURED = "declared objective, measured on the holdout"
WITH_TOOLS = "of the holdout's requests with tools alone"

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ScoredSample:
    """Judged requests as a scorer sees them, (n,) each; ``accepts`` is None without the cascade's second look,
    and -1 for what is kept back whatever the threshold. ``tools``: those with tools.
    ``compared`` is what routing holds against its threshold: the scores, or for a share the worths."""

    scores: Floats
    compared: Floats
    accepts: Floats | None
    acceptable: Bools
    weights: Floats
    tools: Bools

    @classmethod
    def seen_by(cls, scorer: Scorer, examples: Sequence[Example], policy: Policy) -> Self:
        """Examples that the scorer was not fitted on: it is surer of those than it should be."""
        looks = [scorer.look(e.features) for e in examples]
        scores = np.array([look.score for look in looks], np.float64)
        compared = scores
        if policy.objective.share is not None:
            compared = np.array([p.score if p.gain is None else worth(p.gain) for p in looks], np.float64)
        accepts = None
        if policy.accept.cascade and scorer.learned.head is not None:
            pairs = zip(scores.tolist(), examples, strict=True)
            accepts = np.array([-1.0 if e.kept_back else scorer.accept(p, e.judged) for p, e in pairs], np.float64)
        acceptable = np.array([e.acceptable for e in examples], np.bool_)
        weights = np.array([e.weight for e in examples], np.float64)
        tools = np.array([e.features.has_tools for e in examples], np.bool_)
        return cls(scores, compared, accepts, acceptable, weights, tools)

    def only(self, which: Bools) -> Self:
        """Those requests alone."""
        accepts = None if self.accepts is None else self.accepts[which]
        scores, compared, weights = self.scores[which], self.compared[which], self.weights[which]
        return type(self)(scores, compared, accepts, self.acceptable[which], weights, self.tools[which])

    def with_tools(self, thresholds: Thresholds, policy: Policy) -> Evidence | None:
        """What the thresholds do to the requests with tools; None where there are none."""
        if not self.tools.any():
            return None
        goal, part = policy.objective.floor, self.only(self.tools)
        found = with_evidence(
            thresholds,
            part.compared,
            part.accepts,
            part.acceptable,
            confidence=goal.confidence if goal else CONFIDENCE,
            method=WITH_TOOLS,
            weights=part.weights,
        )
        return found.evidence

    def under(self, thresholds: Thresholds) -> Thresholds:
        """The thresholds with what they do to these requests in the place of those that they were found on."""
        before = thresholds.evidence
        assert before is not None
        found = with_evidence(
            thresholds,
            self.compared,
            self.accepts,
            self.acceptable,
            confidence=before.confidence,
            method=before.method,
            weights=self.weights,
        )
        assert found.evidence is not None
        kept = {"target": before.target, "over": before.over}
        return found.model_copy(update={"evidence": found.evidence.model_copy(update=kept)})

    @property
    def shown(self) -> Floats:
        """The probabilities by which answers leave, (n,); 0 for what never does."""
        return self.scores if self.accepts is None else np.maximum(self.accepts, 0.0)

    def certify(self, policy: Policy, route: float) -> Thresholds:
        """For a quality floor. ``route`` must have been fixed without these rows."""
        goal = policy.objective.floor
        assert goal is not None
        return for_parity(
            self.scores,
            self.accepts,
            self.acceptable,
            goal.at_least,
            goal.confidence,
            over=goal.over_requests,
            route=route,
            weights=self.weights,
        )

    def measure(self, thresholds: Thresholds) -> Thresholds:
        """For an objective that promises no quality: what it gives on these rows."""
        return with_evidence(
            thresholds,
            self.compared,
            self.accepts,
            self.acceptable,
            confidence=CONFIDENCE,
            method=MEASURED,
            weights=self.weights,
        )


def share_of(thresholds: Thresholds, policy: Policy) -> float:
    """Share of the traffic that the student would serve, by the thresholds' own evidence.

    A ``student_share`` objective fixes it, whatever the student.
    """
    if policy.objective.share is not None:
        return policy.objective.share
    evidence = thresholds.evidence
    if evidence is None or not evidence.examples:
        return 0.0
    return evidence.served / evidence.examples if evidence.share is None else evidence.share


def tuned(scorer: Scorer, known: Bools, holdout: ScoredSample, policy: Policy) -> Thresholds:
    """By the policy's objective, for what the student may be asked; see ``_with_tools`` and ``_tuned``."""
    return _with_tools(lambda sample: _tuned(scorer, known, sample, policy), holdout, policy)


def _with_tools(certified: Callable[[ScoredSample], Thresholds], holdout: ScoredSample, policy: Policy) -> Thresholds:
    """Thresholds that are ``certified`` on the holdout's requests without tools, and whether they hold for those with
    tools as well.

    Two tests in an order that is fixed before any outcome is seen, the second only of thresholds that passed the
    first, so that both together err no more often than one (Maurer, Hothorn and Lehmacher 1995). Where the second
    fails, requests with tools stay the teacher's, as what no student is asked: neither do failures there make the
    threshold of the others stricter, nor do requests that the student never gets make its failures rarer. Where there
    are too few others to certify anything, all are certified together, and nothing is where tools are not proven.
    """
    fit, others = policy.student.unfit_for.tools is False, holdout.only(~holdout.tools)
    apart = len(others.scores) >= fewest_audits(policy) and not fit
    found = certified(others if apart else holdout)
    told = holdout.with_tools(found, policy)
    if told is None:
        return found
    if fit or proves_tools(policy, told):
        return (holdout.under(found) if apart else found).model_copy(update={"tools": told})
    if not apart and policy.objective.floor is not None:
        found = holdout.under(found.model_copy(update={"route": NEVER, "accept": NEVER}))
    elif apart and found.evidence is not None and found.evidence.share is not None:
        of_all = float(others.weights.sum() / holdout.weights.sum())
        shared = found.evidence.model_copy(update={"share": found.evidence.share * of_all})
        found = found.model_copy(update={"evidence": shared})
    return found.model_copy(update={"tools": told})


def _tuned(scorer: Scorer, known: Bools, holdout: ScoredSample, policy: Policy) -> Thresholds:
    """By the policy's objective; ``known`` are the outcomes that the scorer was fitted on, in its order.

    A share is tracked online and a budget spent online, so for them the route threshold is where the
    proxy starts from, and every answer that passes the other checks leaves.
    """
    aim = policy.objective
    if aim.floor is not None:
        both = policy.accept.routing and holdout.accepts is not None
        return holdout.certify(policy, _route_floor(policy, scorer, known) if both else 0.0)
    if aim.share is not None:
        gains = scorer.held_out_gain_
        known_as = scorer.held_out_ if gains is None else np.array([worth(gain) for gain in gains.tolist()])
        found = Thresholds(route=_share_start(known_as, aim.share), accept=0.0)
    elif aim.fixed is not None:
        route = aim.fixed if policy.accept.routing else 0.0
        found = Thresholds(route=route, accept=0.0 if holdout.accepts is None else aim.fixed)
    else:
        found = Thresholds(route=0.5 if policy.accept.routing else 0.0, accept=0.0)
    return holdout.measure(found)


def retuned(scorer: Scorer, thresholds: Thresholds, holdout: Sequence[Example], policy: Policy) -> Thresholds:
    """An incumbent's thresholds with today's holdout as evidence, so that both students are judged by the same rows.

    For a quality floor they are certified anew; the routing threshold of a cascade stays as it was fixed
    before these rows were seen. Other objectives certify nothing, so only the evidence is new.
    """
    sample = ScoredSample.seen_by(scorer, holdout, policy)
    if policy.objective.floor is None:
        return _with_tools(lambda part: part.measure(thresholds), sample, policy)
    route = thresholds.route if policy.accept.routing and thresholds.route <= 1 else 0.0
    return _with_tools(lambda part: part.certify(policy, route), sample, policy)


def _share_start(compared: Floats, share: float) -> float:
    if share <= 0:
        return NEVER
    return float(np.quantile(compared, 1 - share)) if len(compared) else 0.0


def _route_floor(policy: Policy, scorer: Scorer, known: Bools) -> float:
    """The score below which asking the student is not worth it, from the fitting examples alone.

    The largest score below which the share of answers that would leave falls short of what asking costs:
    the student's price over the teacher's, and ``LEAST_WORTH`` at least. Which answers would leave is
    estimated with the threshold that meets the target on the fitting examples' held-out scores.
    """
    assert policy.objective.floor is not None
    scores, accepts = scorer.held_out_, scorer.held_out_accept_
    tentative = for_parity(scores, accepts, known, policy.objective.floor.at_least, 0.5)
    if tentative.accept == NEVER:
        return 0.0
    order = np.argsort(scores, kind="stable")
    leaving = np.cumsum(accepts[order] >= tentative.accept) / np.arange(1, len(order) + 1)
    wasteful = np.flatnonzero(leaving < _worth(policy))
    return float(scores[order][wasteful[-1]]) if len(wasteful) else 0.0


def _worth(policy: Policy) -> float:
    student = policy.student.usd_per_million
    teacher = policy.teacher.usd_per_million or litellm_price(policy.teacher.model)
    one = Usage(input_tokens=1, output_tokens=1)
    dear = cost_usd(one, teacher) if teacher else 0
    ratio = float(cost_usd(one, student) / dear) if dear else 0.0
    return min(0.9, max(LEAST_WORTH, ratio))
