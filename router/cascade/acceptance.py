"""May this student answer leave? Asked once, at the commit point, before any of it left.

Structure is looked at first, since it needs no scorer: an answer that is not sound is no answer, however confident.
Then the live scorer tells P(acceptable | request, answer) from the score and the student's own token probabilities, and
the threshold decides. A wrong alarm costs a teacher call, never quality.
"""

from __future__ import annotations

from dataclasses import replace

from router.contracts.bundles import Thresholds
from router.contracts.decision import Decision, Deferral, Reason, Tier
from router.judges.judge import Judges
from router.judges.soundness import AnswerSoFar, AskedForm, out_of_set, structural
from router.policy.policy import Policy
from router.scoring.scorer import Scorer
from router.store.redaction import redact
from router.wire.chat import ChatRequest

EVERYTHING = 1 << 62


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
    if decision.reason is Reason.OVERRIDE and decision.tier is Tier.STUDENT:
        return None, confidence
    if (broken := (out_of_set if want.closed_only else structural)(seen, want)) is not None:
        return broken, confidence
    if want.kinds and redact(seen.text, want.kinds) != seen.text:
        return Deferral.PERSONAL, confidence
    if want.closed_only:
        return None, confidence
    least = accept_threshold(policy, decision, thresholds)
    if confidence is not None and least is not None and confidence < least:
        return Deferral.CONFIDENCE, confidence
    return None, confidence


def asked_form(policy: Policy, judges: Judges, chat: ChatRequest, tier: Tier, *, judged: bool) -> AskedForm | None:
    """What is asked of a tier's answer before it leaves; None where nothing is. A student's that is not ``judged``,
    since nobody else is there to answer, must still be one of a closed set."""
    if tier is Tier.TEACHER:
        return None
    form = judges.form(chat.body, chat.task)
    if not judged:
        return replace(form, closed_only=True) if form.closed else None
    kinds = policy.log.kinds(chat.task) if policy.objective.floor is not None else ()
    return replace(form, kinds=kinds) if kinds else form


def tokens_held(policy: Policy, form: AskedForm | None) -> int:
    """How many tokens of a stream are looked at before any leaves: all of one of a closed set."""
    return 0 if form is None else EVERYTHING if form.closed else policy.accept.hold_tokens


def accept_threshold(policy: Policy, decision: Decision, thresholds: Thresholds | None) -> float | None:
    """The probability from which on an answer leaves; None where no confidence is asked for.

    A fixed ``threshold`` objective is on the scale of this probability too, so it holds for both.
    """
    if not policy.accept.cascade or decision.reason is not Reason.SCORE or thresholds is None:
        return None
    if policy.objective.share is not None:
        return None
    return thresholds.accept if policy.objective.fixed is None else policy.objective.fixed
