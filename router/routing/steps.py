"""A decision's walk in words: each step of ``decide``'s order, which one spoke, and why the others did not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from router.contracts.decision import Decision, Deferral, Fallback, Reason
from router.contracts.records import Record
from router.policy.policy import Policy


@dataclass(frozen=True, slots=True)
class Step:
    """``spoke``: this step decided; None for one that was not asked any more."""

    name: str
    spoke: bool | None
    why: str


def walk(record: Record, policy: Policy | None) -> list[Step]:
    """The steps before any token, in their order. ``policy`` is the one that decided, None where it has changed
    since: then only what the record itself says can be told."""
    decision = record.decision
    decided = _decided_by(decision)
    wanted = _named(decision) if decision.reason is Reason.BUDGET else None
    steps, done = [], False
    for reason, silent in _SILENT.items():
        if reason is decided:
            done = True
            steps.append(Step(reason.value, True, _spoke(decision, decided)))
        elif reason is wanted:
            steps.append(Step(reason.value, False, "it would have sent this to the teacher, had there been money"))
        elif done:
            steps.append(Step(reason.value, None, "not asked any more"))
        else:
            steps.append(Step(reason.value, False, silent(decision, policy)))
    if decided in (Reason.SCORE, Reason.COLD_START):
        steps.append(Step(decided.value, True, _spoke(decision, decided)))
    else:
        steps.append(Step(Reason.SCORE.value, None, "not asked any more"))
    return steps


def afterwards(record: Record) -> list[str]:
    """What happened once it was decided, in words, in order; the last says who answered."""
    said = []
    if record.decision.reason is Reason.FALLBACK:
        said.append(f"{record.decision.detail}: the teacher was asked instead")
    if record.deferral is not None:
        said.append(f"the student's answer was not let out: {_DEFERRED[record.deferral]}")
    elif record.reason is Reason.CAPABILITY and record.decision.reason is not Reason.CAPABILITY:
        said.append("the student's own server refused the request, so the teacher was asked")
    if record.fallback is Fallback.BUDGET:
        said.append(_FAILED[record.fallback])
    elif record.fallback is not None and record.decision.reason is not Reason.FALLBACK:
        said.append(f"a backend failed: {_FAILED[record.fallback]}")
    if record.tier is None:
        return [*said, f"nobody answered: status {record.status}"]
    answer = record.answers[0] if record.answers else None
    by = f" ({answer.model})" if answer else ""
    return [*said, f"the {record.tier.value} answered{by}"]


def _decided_by(decision: Decision) -> Reason:
    """The step that spoke. Of a student that was not ready, the detail names it: "student not ready (score)"."""
    return decision.reason if decision.reason is not Reason.FALLBACK else _named(decision) or Reason.SCORE


def _named(decision: Decision) -> Reason | None:
    """The step that the detail names at its end, in brackets."""
    named = decision.detail.rpartition("(")[2].rstrip(")")
    return Reason(named) if named in set(Reason) else None


def _spoke(decision: Decision, decided: Reason) -> str:
    match decided:
        case Reason.OVERRIDE:
            return f"the client asked for the {decision.tier.value}"
        case Reason.CAPABILITY:
            return f"the student is unfit for this: {decision.detail}"
        case Reason.SCORE:
            return _by_score(decision)
        case Reason.COLD_START:
            return "no scorer is fitted yet, so the teacher answers and the student learns"
        case Reason.EXPLORATION:
            return f"{decision.detail}: the student would have been asked, the teacher shows what it says"
        case _:
            return decision.detail


def _by_score(decision: Decision) -> str:
    if decision.score is None or decision.threshold is None:
        return decision.detail or "the score decided"
    name, held = ("score", decision.score) if decision.worth is None else ("worth", decision.worth)
    enough = held >= decision.threshold
    sign, to = (">=", "student") if enough else ("<", "teacher")
    limit = (
        f"threshold {decision.threshold:.4f}" if decision.threshold <= 1 else "any threshold: the student never serves"
    )
    by = f" ({decision.detail})" if decision.detail else ""
    return f"{name} {held:.4f} {sign} {limit}, so the {to}{by}"


def _no_capability(_: Decision, policy: Policy | None) -> str:
    return "nothing is asked for that the student cannot do"


def _no_rule(_: Decision, policy: Policy | None) -> str:
    if policy is None:
        return "no rule of the policy matched"
    return f"none of the policy's {len(policy.rules)} rules matched" if policy.rules else "the policy has no rules"


def _no_affinity(_: Decision, policy: Policy | None) -> str:
    if policy is not None and policy.conversation.affinity == "none":
        return "the policy lets conversations change tier"
    return "the conversation had not gone to the teacher before, or too long ago"


def _no_exploration(decision: Decision, _: Policy | None) -> str:
    if decision.audited:
        return "it was drawn for audit, and what is audited is never explored"
    return f"not drawn (p={decision.exploration:g}), or the teacher answers anyway"


def _no_budget(_: Decision, policy: Policy | None) -> str:
    if policy is not None and policy.objective.cap is None:
        return "the policy has no daily budget"
    if policy is not None and policy.objective.refuses:
        return "where its budget is spent, the policy refuses what would go to the teacher"
    return "no daily budget kept it from the teacher"


_SILENT: dict[Reason, Callable[[Decision, Policy | None], str]] = {
    Reason.OVERRIDE: lambda *_: "the client named no tier",
    Reason.CAPABILITY: _no_capability,
    Reason.RULE: _no_rule,
    Reason.AFFINITY: _no_affinity,
    Reason.EXPLORATION: _no_exploration,
    Reason.BUDGET: _no_budget,
}

_DEFERRED = {
    Deferral.CONFIDENCE: "its probability of being acceptable was too low",
    Deferral.EMPTY: "it was empty",
    Deferral.REFUSAL: "it refused",
    Deferral.SCHEMA: "it broke the form that was asked for",
    Deferral.REPETITION: "it went round in a loop",
    Deferral.TRUNCATED: "it was cut off",
    Deferral.OUTSIDE: "it was none of the answers that there are",
    Deferral.PERSONAL: "it held personal data, of which nothing was ever measured",
}

_FAILED = {
    Fallback.TIMEOUT: "it took too long",
    Fallback.UNREACHABLE: "it could not be reached",
    Fallback.SERVER_ERROR: "it answered with an error",
    Fallback.RATE_LIMITED: "its rate limit was reached",
    Fallback.CIRCUIT_OPEN: "it had failed too often just before",
    Fallback.UNUSABLE: "its provider refused the proxy's account or key, or has the model no more",
    Fallback.UNABLE: "it could not take a request like this one",
    Fallback.BUDGET: "the day's budget had no room for what the teacher can cost at most",
}
