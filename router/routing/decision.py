"""``decide``: pure; a policy and values in, one frozen ``Decision`` out.

The steps are walked in a fixed order, and the first that speaks decides:
override -> capability -> rule -> affinity -> exploration -> budget -> score.

*Exploration* keeps what the student learns from whole. Once a student serves, the teacher answers
only what was judged too hard, and the audited sample is held out, so nothing trainable would cover
the requests that the student serves. A small random share of those goes to the teacher instead
(reason ``exploration``). It can only speak where the later steps would choose the student and a
teacher call is affordable, and it only ever moves a request *to* the teacher: the client never gets
worse for it, under any objective. Draw it by the conversation, not the request: whole conversations
are what is learned from, and none is bounced between the tiers. The audit, which asks the other
tier after the answer left, changes nothing about who serves; what it drew is never explored.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from router.contracts.bundles import NEVER, Evidence, Thresholds
from router.contracts.decision import ASIDE, Decision, Reason, Tier
from router.policy.engines import ENGINES
from router.policy.policy import Policy
from router.scoring.text.features import Features

PRIOR_THRESHOLD = 0.5
UNPROVEN_TOOLS = "tools, with which it has proven nothing yet"
LEAST_WITH_TOOLS = 30
"""Audited requests with tools that prove a student where the policy promises no parity that they could be held to."""


@dataclass(slots=True)
class RequestView:
    """What a decision may look at in one request.

    ``tier`` is what the client asked for by header or model name, ``body`` the parsed request, which
    rules look into by dotted path.
    """

    features: Features
    body: Mapping[str, Any]
    tier: Tier | None = None


@dataclass(slots=True)
class Facts:
    """What is known beside the request at the moment of deciding.

    ``score`` is the live scorer's probability that the student's answer is acceptable, None where no
    scorer was fitted; ``gain`` what it expects escalating to gain, ``novelty`` how strange it finds the request,
    which both allow for already, ``teacher_tokens`` how long it expects the teacher's answer to be; ``prior`` the
    declared prior's. ``worth`` is what a share or money is decided by instead of the score, see ``Decision``.
    ``share_threshold`` is the score or worth above which lies the share that a ``student_share`` objective asks
    for, or that ``usd_per_day`` leaves to the student; None for the other objectives. ``escalated``: this
    conversation went to the teacher before. ``teacher_affordable``: the day's budget, if there is one, has room for
    the dearest that this request can cost. ``propensity`` and ``audited`` are the audit's draw, by the request;
    ``explore`` is exploration's, by the conversation.
    """

    student_ready: bool = True
    escalated: bool = False
    score: float | None = None
    gain: float | None = None
    worth: float | None = None
    novelty: float | None = None
    teacher_tokens: float | None = None
    prior: float = 0.0
    thresholds: Thresholds | None = None
    share_threshold: float | None = None
    teacher_affordable: bool = True
    propensity: float = 0.0
    audited: bool = False
    explore: bool = False


@dataclass(slots=True)
class Ruling:
    tier: Tier
    reason: Reason
    detail: str = ""
    threshold: float | None = None


_CONTROL = re.compile(
    r"<[|｜][^<>|｜\s]{1,40}[|｜]>|</?s>|<[be]os>|<(?:start|end)_of_(?:turn|image)>|\[/?(?:INST|SYSTEM_PROMPT|TOOL_CALLS)\]"
)


def route_threshold(policy: Policy, thresholds: Thresholds | None) -> float | None:
    """The score from which on the student is asked, by the live bundle's ``thresholds`` or the policy's
    fixed one; None where no scorer was fitted. Without routing a bundle has 0, and so has a fixed one.

    A parity bundle whose accept threshold lets no answer out routes none to the student; without the
    cascade its accept threshold, which nothing else would hold any more, holds for the score. One that was
    certified for less than the policy promises now, or for nothing, routes none either.
    """
    if thresholds is None:
        return None
    goal, evidence = policy.objective.floor, thresholds.evidence
    if goal is not None and evidence and (evidence.target < goal.at_least or evidence.confidence < goal.confidence):
        return NEVER
    if policy.objective.fixed is not None:
        return policy.objective.fixed if policy.accept.routing else 0.0
    cascade = policy.accept.cascade and thresholds.accept <= 1
    return thresholds.route if cascade else max(thresholds.route, thresholds.accept)


def student_serves(policy: Policy, thresholds: Thresholds | None) -> bool:
    """Whether any request can reach the student by its score; if none can, this is warm-up."""
    if policy.objective.starts_from_prior:
        return policy.objective.share != 0
    route = route_threshold(policy, thresholds)
    return route is not None and route <= 1


def stands_in(policy: Policy, thresholds: Thresholds | None) -> bool:
    """Whether the student may answer what every teacher failed of, by its bundle's ``thresholds``."""
    if policy.fallback == "certified" and policy.objective.floor is not None:
        return student_serves(policy, thresholds)
    return policy.fallback != "none"


def proves_tools(policy: Policy, found: Evidence | None) -> bool:
    """Whether a student may be asked with tools, by what was ``found`` of its bundle's thresholds on audited requests
    with tools: that the promise holds among them alone."""
    if found is None or not found.served:
        return False
    goal = policy.objective.floor
    if goal is None:
        return found.examples >= LEAST_WITH_TOOLS
    return found.risk_bound <= 1 - goal.at_least and found.confidence >= goal.confidence


def audit_rate(policy: Policy, thresholds: Thresholds | None, wary: bool = False) -> float:
    """The probability with which a request is drawn for audit now: the warm-up's while nothing serves, and while
    what serves is looked at closely (``wary``), if that is more."""
    usual, warmup = policy.audit.rate, policy.audit.warmup_rate
    if not student_serves(policy, thresholds):
        return warmup
    return max(usual, warmup) if wary else usual


def decide(policy: Policy, view: RequestView, state: Facts) -> Decision:
    """Chooses the tier for one request. Does no I/O, keeps no state, and never raises.

    A request bound for a student that is not ready goes to the teacher as a ``fallback``, whose
    detail names the step that had chosen the student. Where there is no money for the teacher, what any step sends
    there goes to the student that can do it, for want of ``budget``; the detail names the step. What no student can
    do, and all of it where the policy refuses then, stays the teacher's: whoever asks it finds no money, and says so.
    """
    verdict = (
        _override(view)
        or _capability(policy, view, state)
        or _rule(policy, view)
        or _affinity(policy, state)
        or _explored(policy, state, _budget(policy, state) or _score(policy, state))
    )
    if verdict.tier is Tier.TEACHER and state.student_ready and _capability(policy, view, state) is None:
        verdict = _budget(policy, state, instead_of=verdict) or verdict
    if verdict.tier is Tier.STUDENT and not state.student_ready:
        why = f"student not ready ({verdict.reason})"
        verdict = Ruling(Tier.TEACHER, Reason.FALLBACK, why, verdict.threshold)
    counts = verdict.reason not in ASIDE  # what tells nothing of the traffic is not audited
    known = state.score
    if known is None and policy.objective.starts_from_prior:
        known = state.prior
    return Decision(
        tier=verdict.tier,
        reason=verdict.reason,
        detail=verdict.detail,
        score=known,
        threshold=verdict.threshold,
        gain=state.gain,
        worth=state.worth,
        teacher_tokens=state.teacher_tokens,
        novelty=state.novelty,
        propensity=state.propensity if counts else 0.0,
        audited=state.audited and counts,
        exploration=0.0 if state.audited else policy.audit.explore,
    )


def _override(view: RequestView) -> Ruling | None:
    return Ruling(view.tier, Reason.OVERRIDE, "asked for by the client") if view.tier else None


def _capability(policy: Policy, view: RequestView, state: Facts) -> Ruling | None:
    what = unable(policy, view, state.thresholds)
    return Ruling(Tier.TEACHER, Reason.CAPABILITY, what) if what else None


def unable(policy: Policy, view: RequestView, thresholds: Thresholds | None) -> str | None:
    """What keeps a client's request from the student: what it is ``lacking``, or has not proven yet that it can. Of the
    latter it is asked in audits, which are what proves it."""
    what = lacking(policy, view)
    if what is None and view.features.has_tools and policy.student.unfit_for.tools is None:
        return None if proves_tools(policy, thresholds.tools if thresholds else None) else UNPROVEN_TOOLS
    return what


def lacking(policy: Policy, view: RequestView) -> str | None:
    """What the request asks for that the student cannot do, None where it can do all: a word for it, or the
    name of the field that it would drop."""
    unfit, has = policy.student.unfit_for, view.features
    what: str | None
    if unfit.images and has.has_images:
        what = "images"
    elif has.has_audio:
        what = "audio"
    elif unfit.tools and has.has_tools:
        what = "tools"
    elif view.body.get("tools") and view.body.get("stream") and not ENGINES[policy.student.engine].streams_calls:
        what = "tools in a stream"
    elif unfit.json_schema and has.wants_schema:
        what = "json_schema"
    elif has.input_tokens > unfit.context_tokens_over:
        what = f"context over {unfit.context_tokens_over} tokens"
    elif unfit.languages and has.language in unfit.languages:
        what = "language"
    elif view.body.get("n") not in (None, 1) and (several := _several(policy, view.body)):
        what = several
    elif not ENGINES[policy.student.engine].literal and _names_control(view.body):
        what = "control tokens in a text"
    elif _is_prefilled(view.body):
        what = "assistant prefill"  # a student's template begins a new turn, and no answer to such a one is learnt
    else:
        what = policy.student.heeded.unheeded(view.body)
    return what


def _several(policy: Policy, body: Mapping[str, Any]) -> str | None:
    """Why several answers at once are none that the student could give."""
    if body.get("stream"):
        return "n in a stream"  # only the first of them could be judged before it leaves
    greedy = body.get("temperature") is None and not policy.student.temperature
    return "n without a temperature" if greedy else None  # they would all be the same


def _names_control(body: Mapping[str, Any]) -> bool:
    """Whether any text has a name in it that open models give to control tokens."""
    messages = body.get("messages")
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, Mapping) else None
        parts = content if isinstance(content, list) else ()
        texts = [content, *(part.get("text") for part in parts if isinstance(part, Mapping))]
        if any(_names_one(text) for text in texts if isinstance(text, str)):
            return True
    return False


def _names_one(text: str) -> bool:
    """Most texts have none of the characters that a name begins with, which is told in a tenth of the search's time."""
    return ("<" in text or "[" in text) and _CONTROL.search(text) is not None


def _is_prefilled(body: Mapping[str, Any]) -> bool:
    """Whether the request begins the answer itself."""
    messages = body.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    return isinstance(last, Mapping) and last.get("role") == "assistant"


def _rule(policy: Policy, view: RequestView) -> Ruling | None:
    for n, rule in enumerate(policy.rules, 1):
        if all(_matches(look_up(view.body, path), wanted) for path, wanted in rule.when.items()):
            return Ruling(Tier(rule.send), Reason.RULE, f"rule {n}: {', '.join(rule.when) or 'always'}")
    return None


def look_up(body: object, path: str) -> object:
    """What lies at a dotted path (``metadata.task``, ``messages.0.role``); None where nothing does."""
    for step in path.split("."):
        if isinstance(body, Mapping):
            body = body.get(step)
        elif isinstance(body, list) and step.isdecimal() and int(step) < len(body):
            body = body[int(step)]
        else:
            return None
    return body


def _matches(found: object, wanted: object) -> bool:
    return found in wanted if isinstance(wanted, list) else found == wanted


def _affinity(policy: Policy, state: Facts) -> Ruling | None:
    if state.escalated and policy.conversation.affinity == "upward":
        return Ruling(Tier.TEACHER, Reason.AFFINITY, "conversation escalated before")
    return None


def _explored(policy: Policy, state: Facts, otherwise: Ruling) -> Ruling:
    may = state.explore and not state.audited and state.teacher_affordable
    if may and otherwise.tier is Tier.STUDENT:
        why = f"drawn with p={policy.audit.explore:g}"
        return Ruling(Tier.TEACHER, Reason.EXPLORATION, why, otherwise.threshold)
    return otherwise


def _budget(policy: Policy, state: Facts, instead_of: Ruling | None = None) -> Ruling | None:
    if state.teacher_affordable or policy.objective.refuses:
        return None
    named = f" ({instead_of.reason})" if instead_of else ""
    return Ruling(Tier.STUDENT, Reason.BUDGET, f"today's budget leaves no room for the teacher{named}")


def _score(policy: Policy, state: Facts) -> Ruling:
    threshold = state.share_threshold if policy.objective.starts_from_prior else None
    if threshold is None:
        threshold = route_threshold(policy, state.thresholds)
    score, detail = state.score, ""
    if policy.objective.starts_from_prior:
        if state.worth is not None:
            score = state.worth
        if score is None:
            score, detail = state.prior, "by the declared prior"
        if threshold is None:
            threshold = PRIOR_THRESHOLD
    if score is None or threshold is None:
        return Ruling(Tier.TEACHER, Reason.COLD_START, "no scorer fitted yet")
    return Ruling(Tier.STUDENT if score >= threshold else Tier.TEACHER, Reason.SCORE, detail, threshold)


def drawn(id: str, rate: float, purpose: str = "audit") -> bool:
    """Whether the request (or conversation) is drawn, with probability ``rate``, by a hash of its id alone.

    ``purpose`` keys the hash: draws for different purposes ("audit", "explore") are independent.
    What is drawn at one rate is drawn at every higher one.
    """
    digest = _keyed(purpose).copy()
    digest.update(id.encode())
    return int.from_bytes(digest.digest()) < rate * 2**64


@cache
def _keyed(purpose: str) -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=8, key=purpose.encode())
