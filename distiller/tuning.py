"""What share of the traffic a student can carry at the policy's target: the other half of the gate's question."""

from __future__ import annotations

from collections.abc import Sequence

from router.contracts.bundles import Thresholds
from router.policy import Policy
from router.scoring.estimator import Example, Scorer
from router.scoring.thresholds import for_parity, with_evidence


def share_of(thresholds: Thresholds, policy: Policy) -> float:
    """Share of the traffic that the student would serve, by the thresholds' own evidence.

    A ``student_share`` objective fixes it, whatever the student.
    """
    if policy.objective.student_share is not None:
        return policy.objective.student_share
    evidence = thresholds.evidence
    return evidence.served / evidence.examples if evidence and evidence.examples else 0.0


def retuned(scorer: Scorer, thresholds: Thresholds, holdout: Sequence[Example], policy: Policy) -> Thresholds:
    """An incumbent's thresholds with today's holdout as evidence, so that both students are judged by the same rows.

    For a quality floor the accept threshold is certified anew; the routing threshold stays as it was
    fixed before these rows were seen. Other objectives certify nothing, so only the evidence is new.
    """
    scores = [scorer.score(e.features) for e in holdout]
    accepts = [scorer.accept(s, e.signals) for s, e in zip(scores, holdout, strict=True)]
    good = [e.acceptable for e in holdout]
    goal = policy.objective.parity
    if goal is None:
        return with_evidence(
            thresholds, scores, accepts, good, target=0.0, confidence=0.95, method="measured on the holdout"
        )
    if not policy.accept.cascade:
        return for_parity(scores, None, good, goal.at_least, goal.confidence)
    route = thresholds.route if thresholds.route <= 1 else 0.0
    return for_parity(scores, accepts, good, goal.at_least, goal.confidence, route=route)
