"""The training-rights ledger: which teacher's answers may be trained on, by what right, and why others not.

``forbidden`` and ``unknown`` never reach a training set unless the user states the right to use
them, in the policy, by the model's name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from router.contracts.decision import Tier
from router.contracts.records import Answer, Record, Rights
from router.policy.policy import Policy, is_model

ALLOWED = "allowed"
STATED = "stated"


def right_to(answer: Answer, policy: Policy) -> str | None:
    """By what right this teacher's answer may be trained on: ``allowed``, ``stated``, or None.

    The policy as it is now decides for its own teacher; where it says nothing (``unknown``), and
    for every other model, what was recorded with the answer stands.
    """
    teacher = policy.teacher
    if any(is_model(answer.model, name) for name in teacher.i_have_the_right_to_train_on):
        return STATED
    rights = answer.training_rights
    if is_model(answer.model, teacher.model) and teacher.training_rights is not Rights.UNKNOWN:
        rights = teacher.training_rights
    return ALLOWED if rights is Rights.ALLOWED else None


def admissible(record: Record, policy: Policy) -> bool:
    """Whether the record may be trained on: its teacher's answer, or that of a label teacher in its place. False where
    the teacher gave none."""
    answer = record.answer_of(Tier.TEACHER)
    return answer is not None and (policy.distil.labels_from is not None or right_to(answer, policy) is not None)


@dataclass(slots=True)
class Ledger:
    """What was used by which right, and what was refused: counts of rows by teacher model.

    ``used`` is keyed ``model: right``, with the source of answers that were asked for to be learnt from;
    ``refused`` is keyed ``model: rights it lacks``.
    """

    used: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    def use(self, model: str, right: str, rows: int = 1, *, source: str = "") -> None:
        self.used[f"{model}: {right}, {source}" if source else f"{model}: {right}"] += rows

    def refuse(self, answer: Answer) -> None:
        """Counts an answer that may not be trained on, with the rights that were recorded for it."""
        self.refused[f"{answer.model}: {answer.training_rights.value}"] += 1

    def as_dict(self) -> dict[str, dict[str, int]]:
        """Plain values for the dataset's file; ``used`` alone is what a manifest lists."""
        return {"used": dict(sorted(self.used.items())), "refused": dict(sorted(self.refused.items()))}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Ledger:
        return cls(used=Counter(values["used"]), refused=Counter(values["refused"]))
