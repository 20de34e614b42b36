"""A round's evaluation as two files in the bundle's folder, for whoever asks how good it is."""

from __future__ import annotations

from collections.abc import Mapping

from distiller.evaluation.asking import StudentAnswer
from distiller.evaluation.report import report, write
from distiller.evaluation.slices import with_rarity
from distiller.evaluation.study import Asked, Student
from distiller.rounds.material import Material
from distiller.rounds.publish import Draft


def write_report(
    bundle: str,
    material: Material,
    draft: Draft,
    *,
    answers: Mapping[str, StudentAnswer],
    grades: Mapping[str, bool],
    before: Mapping[str, bool],
) -> None:
    """Writes ``report.json`` and ``report.html`` into the folder of ``bundle``, which is complete without them.

    Args:
        answers, grades: the bundle's student on the holdout; ``before``: the live student's grades there.
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
    student = Student(bundle, policy.student.model, form, policy.student.engine or "a URL", parent)
    told = report(
        student,
        asked,
        policy,
        source="the audited holdout",
        in_flight=material.configs.evaluate.in_flight,
        gate=draft.gate,
        training=draft.evaluation.get("train"),
    )
    write(told, material.bundles / bundle)
