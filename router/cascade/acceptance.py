"""May this student answer leave? Asked once, at the commit point, before any of it left.

Structure is looked at first, since it needs no scorer: an answer that is not sound is no answer, however confident.
Then the live scorer tells P(acceptable | request, answer) from the score and the student's own token probabilities, and
the threshold decides. A wrong alarm costs a teacher call, never quality.
"""

from __future__ import annotations

from router.contracts.bundles import Thresholds
from router.contracts.decision import Decision, Deferral, Reason
from router.judges.soundness import AnswerSoFar, AskedForm, structural
from router.policy.policy import Policy
from router.scoring.scorer import Scorer


def judge_answer(
    seen: AnswerSoFar,
    want: AskedForm,
    *,
    policy: Policy,
    decision: Decision,
    scorer: Scorer | None,
    thresholds: Thresholds | None,
) -> tuple[Deferral | None, float | None]:
    """Why the student's answer must be deferred to the teacher (None: it may leave), and the
    P(acceptable | request, answer) where a scorer tells it.

    A client that asked for the student by name gets it, whatever it says. The confidence test holds
    only where the score chose the student: a rule, a spent budget or a declared share mean it as said.
    """
    confidence = None
    if scorer is not None and decision.score is not None:
        confidence = scorer.accept(decision.score, seen.signals)
    if decision.reason is Reason.OVERRIDE:
        return None, confidence
    if (broken := structural(seen, want)) is not None:
        return broken, confidence
    least = accept_threshold(policy, decision, thresholds)
    if confidence is not None and least is not None and confidence < least:
        return Deferral.CONFIDENCE, confidence
    return None, confidence


def accept_threshold(policy: Policy, decision: Decision, thresholds: Thresholds | None) -> float | None:
    """The probability from which on an answer leaves; None where no confidence is asked for.

    A fixed ``threshold`` objective is on the scale of this probability too, so it holds for both.
    """
    if not policy.accept.cascade or decision.reason is not Reason.SCORE or thresholds is None:
        return None
    if policy.objective.share is not None:
        return None
    return thresholds.accept if policy.objective.fixed is None else policy.objective.fixed
