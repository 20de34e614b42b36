"""What a round did: its report, and its evaluation as two files, for whoever asks why a student was rejected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distiller.bundles import Draft
from distiller.evaluation.answers import StudentAnswer
from distiller.evaluation.report import report, write
from distiller.evaluation.slices import with_rarity
from distiller.evaluation.study import EvaluatedStudent, Examination
from distiller.labels.run import LabelReport
from distiller.rounds.material import Material


@dataclass(frozen=True, slots=True)
class RoundReport:
    """What a round did.

    ``bundle`` is the new one, None where nothing was published, and ``reasons`` say why. ``share`` is
    the share of the traffic that the student is expected to serve at the target, ``acceptable_rate``
    how often it is right on all of it, each beside the incumbent's on the same rows. ``seconds`` by
    stage; ``tally`` is what the log held, for the next trigger. ``paid_usd`` is what of the cost was paid to judges, to
    a label teacher and for synthetic data, ``synthetic_run`` the run that wrote that; ``labels`` is what the label
    teacher's run (``labels_run``) had answered (``distiller.labels.run.LabelReport``). ``page`` shows the student's
    evaluation.
    """

    policy: str
    kind: str
    at: float
    bundle: str | None
    parent: str | None
    reasons: tuple[str, ...]
    counts: dict[str, int]
    skipped: dict[str, int]
    acceptable_rate: float | None
    incumbent_rate: float | None
    share: float
    incumbent_share: float
    seconds: dict[str, float]
    cost_usd: str
    tally: dict[str, int]
    resumed: bool = False
    paid_usd: str = "0"
    synthetic_run: str | None = None
    labels_run: str | None = None
    labels: dict[str, Any] | None = None
    page: str | None = None

    @property
    def promoted(self) -> bool:
        return self.bundle is not None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, one line of the history."""
        return asdict(self)


def write_report(
    name: str,
    folder: Path,
    material: Material,
    draft: Draft,
    *,
    answers: Mapping[str, StudentAnswer],
    grades: Mapping[str, bool],
    before: Mapping[str, bool],
    labels: LabelReport | None = None,
) -> Path:
    """Writes ``report.json`` and ``report.html`` of the student ``name`` into ``folder``; returns the page.

    Args:
        answers, grades: the draft's student on the holdout; ``before``: the live student's grades there.
    """
    policy, holdout = material.policy, [q for q in material.holdout if q.request_id in answers]
    asked = Examination(
        questions=with_rarity(holdout, draft.scorer),
        answers=answers,
        grades=grades,
        parent_grades=before,
        scorer=draft.scorer,
        learnt=draft.learnt,
    )
    form = draft.form or policy.student.served_form
    parent = material.parent_id or "the base student"
    student = EvaluatedStudent(name, policy.student.model, form, policy.student.engine or "a URL", parent)
    told = report(
        student,
        asked,
        policy,
        source="the audited holdout",
        in_flight=material.configs.evaluate.in_flight,
        gate=draft.gate,
        training=draft.evaluation.get("train"),
        labels=None if labels is None else asdict(labels),
    )
    return write(told, folder)[1]
