"""A round's evaluation as two files, for whoever asks how good a student is, or why it was rejected."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from distiller.bundles import Draft
from distiller.evaluation.asking import StudentAnswer
from distiller.evaluation.report import report, write
from distiller.evaluation.slices import with_rarity
from distiller.evaluation.study import Asked, Student
from distiller.rounds.material import Material


def write_report(
    name: str,
    folder: Path,
    material: Material,
    draft: Draft,
    *,
    answers: Mapping[str, StudentAnswer],
    grades: Mapping[str, bool],
    before: Mapping[str, bool],
) -> Path:
    """Writes ``report.json`` and ``report.html`` of the student ``name`` into ``folder``; returns the page.

    Args:
        answers, grades: the draft's student on the holdout; ``before``: the live student's grades there.
    """
    policy, holdout = material.policy, [q for q in material.holdout if q.request_id in answers]
    asked = Asked(
        questions=with_rarity(holdout, draft.scorer),
        answers=answers,
        grades=grades,
        parent_grades=before,
        scorer=draft.scorer,
        learnt=draft.learnt,
    )
    form = draft.form or policy.student.served_form
    parent = material.parent_id or "the base student"
    student = Student(name, policy.student.model, form, policy.student.engine or "a URL", parent)
    told = report(
        student,
        asked,
        policy,
        source="the audited holdout",
        in_flight=material.configs.evaluate.in_flight,
        gate=draft.gate,
        training=draft.evaluation.get("train"),
    )
    return write(told, folder)[1]
