"""A call that another system logged, as a record."""

from __future__ import annotations

import hashlib

import orjson

from distiller.logs.calls import LoggedCall
from distiller.logs.terms import rights_of
from router.contracts.decision import Decision, Reason, Tier
from router.contracts.records import Answer, AnswerKind, Provenance, Record
from router.policy.policy import Policy
from router.scoring.text.features import FEATURES_VERSION


def record_of(call: LoggedCall, policy: Policy, at: float) -> Record:
    """What is kept of a call imported ``at`` (unix time). Nobody here decided or paid anything: its client had chosen
    the teacher, whose answer is trained on by the right that its name or its log tells, or that the policy states."""
    forced = Reason.OVERRIDE
    answer = Answer(
        tier=Tier.TEACHER,
        kind=AnswerKind.SERVED,
        model=call.model or "unnamed",
        message=call.message,
        finish_reason=call.finish_reason,
        usage=call.usage,
        seconds=call.seconds,
        training_rights=rights_of(call.model),
    )
    return Record(
        request_id=f"imported-{_digest(policy.name, call.key)}",
        conversation_id=call.conversation or f"imported-{_opening(call)}",
        created_at=at if call.at is None else call.at,
        policy=policy.name,
        policy_version=policy.version,
        features_version=FEATURES_VERSION,
        user=call.user,
        task=call.task,
        decision=Decision(tier=Tier.TEACHER, reason=forced, detail=f"imported from a log of {call.source.value}"),
        tier=Tier.TEACHER,
        reason=forced,
        request=call.request,
        answers=[answer],
        seconds=call.seconds,
        imported=Provenance(source=call.source.value, at=at),
    )


def _opening(call: LoggedCall) -> str:
    """All turns of a conversation begin alike, up to what its user said first; so that no conversation is on both sides
    of a split, others that begin so may stand beside it."""
    messages = call.request["messages"]
    first = next((place for place, message in enumerate(messages) if message["role"] == "user"), 0)
    return _digest(call.user, messages[: first + 1])


def _digest(*told: object) -> str:
    return hashlib.blake2b(orjson.dumps(told, default=str), digest_size=16).hexdigest()
