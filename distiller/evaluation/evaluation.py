"""One evaluation from questions to figures: both students are asked on the form that serves, judged, and told apart.

Every answer and every paid verdict is kept as it comes, under the student's own key: a killed evaluation goes on
where it stopped, and another one of the same student asks only what is new.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from distiller.bundles import ANSWERS
from distiller.config import EvaluateConfig
from distiller.data.rows import DatasetRow
from distiller.evaluation.answers import StudentAnswer, StudentQuestion, read_answers
from distiller.evaluation.engine import way_to
from distiller.evaluation.grading import grade, question
from distiller.evaluation.perturbation import perturbed
from distiller.evaluation.report import report
from distiller.evaluation.slices import with_rarity
from distiller.evaluation.study import Examination
from distiller.evaluation.subject import Subject
from distiller.evaluation.verdicts import judge_answers
from distiller.progress import Progress
from router.errors import BundleError
from router.judges.judge import Judges
from router.scoring.text.encoder import load_encoder
from router.settings import Settings


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluation needs beside the students: where answers are kept (``work``), how much is asked, and how."""

    settings: Settings
    work: Path
    config: EvaluateConfig
    tell: Progress
    adversarial: int = 0
    seed: int = 0

    def of(self, subject: Subject, parent: Subject | None, rows: Sequence[DatasetRow], source: str) -> dict[str, Any]:
        """The report's values. ``source`` says where the ``rows`` come from.

        Raises:
            EngineError: a student cannot be served, or leaves a question unanswered.
            JudgeError: the policy's judge fails on too many answers.
        """
        trained = subject.trained_on
        scorer = self._scorer(subject)
        asked = [question(row) for row in rows if row.request_id not in trained]
        questions = with_rarity(asked, scorer)
        changed = perturbed(questions, self.adversarial)
        originals = {q.request_id: q for q in questions}
        # The judge sees the original request: what was put into the prompt must not speak to it.
        judged = [replace(q, body=originals[old].body) for old, q in changed]
        answers, grades, usd = self._answered(subject, [*questions, *(q for _, q in changed)], [*questions, *judged])
        before: Mapping[str, bool] = {}
        if parent is not None:
            _, before, more = self._answered(parent, questions, questions)
            usd += more
        manifest = subject.bundle
        told = report(
            subject.told(parent.name if parent else None),
            Examination(questions, answers, grades, before, changed, scorer, subject.learnt),
            subject.policy,
            source=source,
            in_flight=self.config.in_flight,
            gate=manifest.gate if manifest else None,
            training=manifest.evaluation.get("train") if manifest else None,
            seed=self.seed,
        )
        return {**told, "judge_usd": str(usd), "trained_on_left_out": len(rows) - len(asked)}

    def _scorer(self, subject: Subject) -> Any:
        """The student's own; where this version cannot read it, the rest is still worth telling."""
        try:
            return subject.scorer(self.settings)
        except BundleError as e:
            self.tell.stage("scorer", f"left out: {e}")
            return None

    def _answered(
        self, subject: Subject, questions: Sequence[StudentQuestion], judged: Sequence[StudentQuestion]
    ) -> tuple[Mapping[str, StudentAnswer], dict[str, bool], Decimal]:
        """The student's answers to ``questions``, the grades of ``judged``, and what judging cost in USD."""
        kept, policy = self.work / subject.key / ANSWERS, subject.policy
        known = read_answers(kept, policy.student.temperature)
        new = sum(q.request_id not in known for q in questions)
        self.tell.stage("ask", f"{subject.name} as {subject.form_name}: {len(questions)} prompts, {new} of them new")
        if new:
            with way_to(subject.form, policy, self.settings, self.config, self.tell.step) as asker:
                asker.ask(questions, kept)
        judges, usd = Judges(policy.judge), Decimal(0)
        if not all(judges.immediate(q.task) for q in judged):
            self.tell.stage("judge", f"{len(judged)} answers")
            encoder = partial(load_encoder, self.settings.cache)
            usd = Decimal(judge_answers(policy, judged, kept, encoder=encoder, on_verdict=self.tell.step)["usd"])
        answers = read_answers(kept)
        return answers, grade(judged, answers, judges), usd
