"""Whether a policy can ever learn, in one sentence: from whose answers, or why not and what to change."""

from __future__ import annotations

from dataclasses import dataclass

from router.contracts.records import Rights
from router.policy.policy import Policy, is_model


@dataclass(frozen=True, slots=True)
class LearningVerdict:
    """``can``: a round may train on something that this policy's requests bring; ``words`` say from whom, or why not
    and what to change."""

    can: bool
    words: str


def learning(policy: Policy) -> LearningVerdict:
    """What the policy alone tells; no record is looked at. What was imported has rights of its own."""
    teacher, labels = policy.teacher, policy.distil.labels_from
    barred = f"{teacher.model}'s own may not be trained on (training_rights: {teacher.training_rights.value})"
    if (why := _never(policy, barred)) is not None:
        return LearningVerdict(False, f"never learns, since {why}")
    if policy.may_train_on_teacher:
        stated = teacher.training_rights is not Rights.ALLOWED
        right = "i_have_the_right_to_train_on names it" if stated else "training_rights: allowed"
        return LearningVerdict(True, f"learns from {teacher.model}'s own answers ({right})")
    if labels is not None:
        return LearningVerdict(
            True,
            f"learns from what {labels.model} answers to the logged prompts (by your word, training_rights: allowed; "
            f"for at most {labels.usd_per_round} USD a round); {barred} and only measure",
        )
    stated_for = [f for f in teacher.fallbacks if any(is_model(f, n) for n in teacher.i_have_the_right_to_train_on)]
    remedy = (
        "name a label teacher whose answers may be (distil.labels_from: {model: …, url: …, training_rights: allowed}), "
        f"or, if you have the right, say so (teacher.i_have_the_right_to_train_on: [{teacher.model}])"
    )
    if stated_for:
        said = f"learns only from what the fallback {' or '.join(stated_for)} answers, since {barred}"
        return LearningVerdict(True, f"{said}: {remedy}")
    return LearningVerdict(False, f"never learns, since {barred} and no label teacher is named: {remedy}")


def _never(policy: Policy, barred: str) -> str | None:
    """What keeps a policy from learning, whoever may be learnt from, and what to change."""
    labels = policy.distil.labels_from
    if not policy.log.text:
        return "no text is kept: set log.text: true"
    if not policy.audit.rate and not policy.audit.warmup_rate:
        return "nothing is audited and so no student could be judged: set audit.rate or audit.warmup_rate above 0"
    if labels is None or policy.may_train_on_teacher or labels.usd_per_round:
        return None
    price = labels.usd_per_million
    if price is not None and not price.input and not price.output:
        return None
    return f"{barred} and distil.labels_from.usd_per_round: 0 pays for no answer of {labels.model}: raise it"
