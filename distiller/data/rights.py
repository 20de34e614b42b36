"""The training-rights ledger: which teacher's answers may be trained on, by what right, and why others not.

``forbidden`` and ``unknown`` never reach a training set unless the user states the right to use
them, in the policy, by the model's name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from router.contracts.decision import Tier
from router.contracts.records import Answer, Record, Rights
from router.policy.policy import Policy

ALLOWED = "allowed"
STATED = "stated"
_SNAPSHOT = r"(-\d{4}-?\d{2}-?\d{2})?"


def is_model(answered: str, named: str) -> bool:
    """Whether the model that answered is the one that a policy names.

    A provider that only one of them gives in front (``openai/gpt-5``), and the date of a snapshot
    behind (``gpt-5-2025-08-07``), don't make another model; another provider or anything else does.
    """
    if "/" not in answered or "/" not in named:
        answered, named = answered.rsplit("/", 1)[-1], named.rsplit("/", 1)[-1]
    return re.fullmatch(re.escape(named) + _SNAPSHOT, answered) is not None


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
    """Whether the record's teacher answer may be trained on. False where the teacher gave none."""
    answer = record.answer_of(Tier.TEACHER)
    return answer is not None and right_to(answer, policy) is not None


@dataclass(slots=True)
class Ledger:
    """What was used by which right, and what was refused: counts of rows by teacher model.

    ``used`` is keyed ``model: right``, ``refused`` is keyed ``model: rights it lacks``.
    """

    used: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    def use(self, model: str, right: str, rows: int = 1) -> None:
        self.used[f"{model}: {right}"] += rows

    def refuse(self, answer: Answer) -> None:
        """Counts an answer that may not be trained on, with the rights that were recorded for it."""
        self.refused[f"{answer.model}: {answer.training_rights.value}"] += 1

    def as_dict(self) -> dict[str, dict[str, int]]:
        """Plain values for the dataset's file; ``used`` alone is what a manifest lists."""
        return {"used": dict(sorted(self.used.items())), "refused": dict(sorted(self.refused.items()))}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Ledger:
        return cls(used=Counter(values["used"]), refused=Counter(values["refused"]))
