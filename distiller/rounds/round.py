"""One round of the closed loop: log -> dataset -> student -> evaluation -> scorer, thresholds -> gate -> bundle.

Each stage's result is kept in ``<home>/work/<policy>/current``: a killed round, called again, goes on
after its last finished stage, and inside training and evaluation after the last checkpoint or answer.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from decimal import Decimal
from functools import cache, partial
from pathlib import Path
from typing import Any

from distiller.bundles import (
    ANSWERS,
    DATASET,
    GGUF,
    INT8,
    STUDENT,
    Draft,
    StudentFiles,
    prune,
    round_cost_usd,
    write_bundle,
)
from distiller.config import Configs, TrainConfig
from distiller.data.rows import Skip
from distiller.evaluation import grading
from distiller.evaluation.answers import StudentAnswer, StudentQuestion, read_answers
from distiller.evaluation.gate import LEAST_ROWS, PairedOutcome, judge
from distiller.evaluation.slices import with_rarity
from distiller.evaluation.verdicts import judge_answers
from distiller.forms.export import export, has_gguf
from distiller.home import CanaryRunning, RoundKind, one_round_at_a_time, remember, unfinished
from distiller.progress import Progress, SilentProgress
from distiller.rounds.material import INCUMBENT, Material
from distiller.rounds.purchases import Purchases
from distiller.rounds.refresh import Refresh, refreshed
from distiller.rounds.report import RoundReport, write_report
from distiller.rounds.scorer import certified_heads, fit_bundle_scorer, parted
from distiller.rounds.trigger import nothing_to_tune
from distiller.rounds.tuning import retuned, share_of
from distiller.training.run import heads_of, trained
from router.contracts.bundles import DatasetRef, FormName, activate, begin_canary, read_active
from router.engine.weights import base_student
from router.errors import BundleError, TrainingError
from router.heads.files import load
from router.heads.shelf import load_scorer
from router.judges.judge import Judges
from router.policy.engines import EncoderKind, gguf_form
from router.policy.learning import learning
from router.policy.policy import Policy
from router.scoring.model import Example
from router.scoring.scorer import Scorer
from router.scoring.statistics.shift import Spread
from router.scoring.text.encoder import Encoder, load_encoder
from router.settings import Settings

Answers = Mapping[str, StudentAnswer]
REJECTED = "rejected"
"""Folder of the last rejected student's evaluation, among the policy's work."""


def run_round(
    policy: Policy,
    settings: Settings,
    *,
    kind: RoundKind = RoundKind.TRAIN,
    seed: int = 0,
    keep_work: bool = False,
    configs: Configs | None = None,
    tell: Progress | None = None,
    encoders: Callable[[Path, EncoderKind], Encoder | None] = load_encoder,
) -> RoundReport:
    """Makes a better student (or, to calibrate, only tunes for the live one), and promotes it if it passes.

    Goes on with a round that was killed, if it was of the same kind, student, policy and seed.
    ``encoders`` loads what scorers read text with, by the cache's folder and the kind.

    Raises:
        RoundRunning: another process works on a round in the same home.
        CanaryRunning: the student that a round would begin with is not settled yet.
        BundleError: the live bundle's weights are gone.
        EngineError: a student cannot be served, or its base weights cannot be had.
    """
    with one_round_at_a_time(settings):
        canary = read_active(settings.bundles(policy.name)).canary
        if canary and unfinished(settings.work(policy.name)) is None:
            raise CanaryRunning(canary.bundle)
        configs, tell = configs or Configs(), tell or SilentProgress()
        material = Material(policy, settings, kind=kind, seed=seed, configs=configs, tell=tell)
        work = Round(material, seed, encoders)
        with material.work.clocked(lambda seconds, paid: round_cost_usd(seconds, policy, paid)):
            report = work.train() if kind is RoundKind.TRAIN else work.calibrate()
        remember(settings.work(policy.name), report.as_dict())
        material.work.finish(keep_work)
        prune(settings.bundles(policy.name))
        return report


class Round:
    """One round under way: what was kept is read, what was not is done."""

    def __init__(self, material: Material, seed: int, encoders: Callable[[Path, EncoderKind], Encoder | None]) -> None:
        self.material, self.seed = material, seed
        self._encoder = cache(partial(encoders, material.settings.cache))
        self.policy, self.settings, self.tell = material.policy, material.settings, material.tell
        self.work, self.folder = material.work, material.work.folder
        self._judges = Judges(material.policy.judge)
        self.paid_usd = Decimal(0)
        self.bought = Purchases()
        self.left_out: dict[str, int] = {}
        self.page: Path | None = None

    def train(self) -> RoundReport:
        """From the log to a promoted or a rejected student."""
        m = self.material
        try:
            self.bought.make(m, partial(self._encoder, "static"), self.seed)
            self.paid_usd += self.bought.usd
            student, training = self._trained()
        except TrainingError as e:
            may = learning(self.policy)
            why = f"nothing was trained: {e}" + ("" if may.can else f"; this policy {may.words}")
            return self._report(None, (why,), ({}, {}), (0.0, 0.0))
        int8, gguf = self._exported(student)
        answers = self._ask("evaluate", StudentFiles(int8 or student, gguf), ANSWERS, [*m.dev, *m.holdout])
        before = self._ask("incumbent", m.incumbent, INCUMBENT, m.holdout)
        draft = self._fitted(answers, ANSWERS)
        shares = share_of(draft.thresholds, self.policy), self._incumbent_share(before)
        self.tell.stage("gate", f"paired with the incumbent on {len(m.holdout)} audited requests")
        rows = self._compared(draft.scorer, self._grades(answers), self._grades(before))
        verdict = judge(rows, *shares, m.gate)
        draft = replace(
            draft,
            student=student,
            int8=int8,
            gguf=gguf,
            form=self.policy.student.served_form,
            trained_on=m.dataset.train,
            gate=verdict.as_dict(),
            evaluation={**draft.evaluation, "train": training},
            train_seconds=training["seconds"],
        )
        if not verdict.promoted:
            self._tell_in(self.settings.work(self.policy.name) / REJECTED, REJECTED, draft, answers, before)
            return self._report(None, verdict.reasons, (answers, before), shares)
        return self._report(self._published(draft, answers, before), verdict.reasons, (answers, before), shares)

    def calibrate(self) -> RoundReport:
        """The same student; thresholds certified anew on all that the audits have shown since.

        A scorer is fitted only where there is none, else refreshed with audits. What came in since the live one was
        fitted is mostly what it sent to the teacher: a scorer learnt from that would rank the rest worse.
        """
        m = self.material
        if m.parent is None and not self.policy.student.traits.generates:
            return self._report(None, ("there are no label heads yet",), ({}, {}), (0.0, 0.0))
        known = m.live_answers()
        if reason := self._hopeless(known):
            return self._report(None, (reason,), (known, {}), (0.0, 0.0))
        scorer = self._live_scorer()
        answers = self._ask("evaluate", m.incumbent, INCUMBENT, m.holdout if scorer else [*m.dev, *m.holdout])
        draft = self._fitted(answers, INCUMBENT, scorer)
        shares = share_of(draft.thresholds, self.policy), share_of(m.parent.thresholds, self.policy) if m.parent else 0
        if shares[0] == 0 and m.parent is None:
            return self._report(None, ("no threshold meets the target yet",), (answers, answers), shares)
        reason = f"the same student, tuned for on {draft.evaluation['scorer']['certified_on']} audited requests"
        draft = replace(
            draft,
            student=m.own(STUDENT),
            int8=m.own(INT8),
            gguf=m.own(GGUF),
            form=m.parent.student.form if m.parent else None,
            trained_on=m.own(f"{DATASET}/train.jsonl"),
            dataset=m.parent.dataset if m.parent else draft.dataset.model_copy(update={"train": 0, "rights": {}}),
            gate={"promoted": True, "reasons": [reason]},
        )
        return self._report(self._published(draft, answers, {}), (reason,), (answers, answers), shares)

    def _ask(self, stage: str, student: StudentFiles, kept: str, questions: Sequence[StudentQuestion]) -> Answers:
        """A student's answers, judged as far as that takes something; what cannot be had twice is kept."""
        answers, path = self.material.ask(stage, student, kept, questions), self.folder / kept
        if all(self._judges.immediate(q.task) for q in questions):
            return answers
        self.tell.stage(stage, f"judging {len(questions)} answers")
        found = self.work.stage(f"{stage}-judged", lambda: self._judge(questions, path))
        self.paid_usd += Decimal(found["usd"])
        judged = read_answers(path)
        return {name: judged[name] for name in answers}

    def _judge(self, questions: Sequence[StudentQuestion], kept: Path) -> dict[str, Any]:
        return judge_answers(
            self.policy, questions, kept, encoder=partial(self._encoder, "static"), on_verdict=self.tell.step
        )

    def _trained(self) -> tuple[Path, dict[str, Any]]:
        """The candidate's folder, a Hugging Face one or that of label heads, and the training's own report."""
        m, out = self.material, self.folder / STUDENT
        if not self.policy.student.traits.generates:
            return out, self._with_heads(out)
        config = replace(m.configs.train or TrainConfig.from_policy(self.policy), seed=self.seed)
        start = m.own(STUDENT) or base_student(self.policy.student.model, self.settings.cache)
        self.tell.stage("train", f"{m.dataset.counts['train']} rows, {m.dataset.new} of them new")

        def learn() -> dict[str, Any]:
            return {k: v for k, v in asdict(trained(config, start, m.dataset, out)).items() if k != "folder"}

        found = self.work.stage("train", learn)
        self.left_out = found["left_out"]
        self.work.seconds["train"] = round(found["seconds"], 3)  # of a resumed run, all of it
        return out, found

    def _with_heads(self, out: Path) -> dict[str, Any]:
        dataset, encoder = self.material.dataset, self._encoder(self.policy.scorer.encoder)
        self.tell.stage("train", f"label heads on {dataset.counts['train']} rows, {dataset.new} of them new")
        return self.work.stage("train", lambda: heads_of(dataset, out, encoder, self.tell.step))

    def _exported(self, student: Path) -> tuple[Path | None, Path | None]:
        """The candidate in eight bits, where the policy says so, and as a GGUF, where its base student's own is
        known; the policy's engine reads one of them, or the weights as trained."""
        form = self.policy.student.served_form
        int8 = self._export(student, form, INT8) if form == "int8" else None
        gguf = self._export(student, gguf_form(form), GGUF) if has_gguf(self.policy.student.model) else None
        return int8, gguf

    def _export(self, student: Path, form: FormName, name: str) -> Path:
        out = self.folder / name
        self.tell.stage("export", f"writing {form}")
        self.work.stage(f"export-{form}", lambda: {"to": str(export(student, form, out, self.policy.student.model))})
        return out

    def _fitted(self, answers: Answers, kept: str, live: Scorer | None = None) -> Draft:
        """A bundle's draft with the student's scorer, the live one refreshed or a fresh one, its thresholds, and
        what both rest on."""
        m = self.material
        fresh = f"scorer on {len(m.dev)} rows, " if live is None else ""
        self.tell.stage("fit", f"{fresh}thresholds on {len(m.holdout)} audited requests")
        grades = self._grades(answers)
        dev, holdout = (grading.examples(part, answers, grades) for part in (m.dev, m.holdout))
        with self.work.timed("fit"):
            if not self.policy.student.traits.generates:
                folder = self.folder / STUDENT if m.kind is RoundKind.TRAIN else Path(m.incumbent.folder)
                scorer, thresholds, fit = certified_heads(load(folder, self._encoder), holdout, self.policy)
                certifying, learnt = holdout, frozenset[str]()
            elif live is None or m.parent is None:
                encoder = self._encoder(self.policy.scorer.encoder)
                scorer, thresholds, fit = fit_bundle_scorer(
                    dev, holdout, self.policy, encoder, self.seed, on_step=self.tell.step
                )
                fitting, certifying = parted(dev, holdout)
                learnt = m.audited_ids(e.request_id for e in fitting)
            else:
                found = self._refreshed(live, holdout)
                scorer, certifying, learnt = found.scorer, found.certifying, m.audited_ids(found.learnt)
                thresholds = retuned(scorer, m.parent.thresholds, certifying, self.policy)
                fit = {"kept_from": m.parent_id, **found.report}
        data = m.dataset
        return Draft(
            scorer=scorer,
            thresholds=thresholds,
            dataset=DatasetRef(sha256=data.sha256, rights=dict(data.rights.used), **data.counts),
            answers=self.folder / kept,
            learnt=learnt,
            parent=m.parent_id,
            evaluation={
                "holdout": grading.report(m.holdout, answers, grades),
                "dev": grading.report(m.dev, answers, grades),
                "scorer": fit,
                "scores": Spread.of(scorer.score(e.features) for e in certifying).as_dict(),
            },
        )

    def _refreshed(self, live: Scorer, holdout: Sequence[Example]) -> Refresh:
        older, known = self.material.older, self.material.known_answers(self.material.older)
        judged = grading.examples(older, known, grading.grade(older, known, self._judges))
        return refreshed(live, judged, holdout, self.material.learnt)

    def _incumbent_share(self, answers: Answers) -> float:
        """What the live bundle would carry, with its own scorer, on what it did not learn from; 0 without one."""
        m, scorer = self.material, self._live_scorer()
        if m.parent is None or scorer is None or not m.holdout:
            return 0.0
        rows = grading.examples([q for q in m.holdout if q.request_id not in m.learnt], answers, self._grades(answers))
        return share_of(retuned(scorer, m.parent.thresholds, rows, self.policy), self.policy)

    def _live_scorer(self) -> Scorer | None:
        """The live bundle's scorer; None where there is none, or none that this version can read."""
        m = self.material
        if m.parent is None or m.own(m.parent.scorer) is None:
            return None
        try:
            return load_scorer(m.bundles / m.parent.bundle_id, m.parent, self._encoder)
        except BundleError as e:
            self.tell.stage("fit", f"the live scorer no longer fits, so its share counts as none: {e}")
            return None

    def _hopeless(self, known: Answers) -> str | None:
        """Why there is nothing to calibrate, as far as live audits tell; None where there may be."""
        audited, grades = len(self.material.holdout), self._grades(known)
        if audited < LEAST_ROWS:
            return f"only {audited} audited requests; at least {LEAST_ROWS} are needed to tune by"
        return nothing_to_tune(sum(grades.values()) + audited - len(grades))  # what is not known yet may be right

    def _grades(self, answers: Answers) -> dict[str, bool]:
        return grading.grade([*self.material.dev, *self.material.holdout], answers, self._judges)

    def _compared(
        self, scorer: Scorer, candidate: Mapping[str, bool], incumbent: Mapping[str, bool]
    ) -> list[PairedOutcome]:
        """The gate's rows, in the form that will serve."""
        questions = with_rarity(self.material.holdout, scorer)
        return grading.outcomes(questions, candidate, incumbent, self.policy.student.served_form)

    def _published(self, draft: Draft, answers: Answers, before: Answers) -> str:
        """Writes the bundle and lets it serve; the running proxy follows the pointer by itself."""
        bundles = self.material.bundles
        self.tell.stage("publish", "writing the bundle, manifest last")
        draft = replace(draft, seconds=self.work.elapsed, paid_usd=self.paid_usd)
        found = self.work.stage("publish", lambda: {"bundle": write_bundle(bundles, self.policy, draft).bundle_id})
        bundle = str(found["bundle"])
        self._tell_in(bundles / bundle, bundle, draft, answers, before)
        self._make_live(bundle)
        return bundle

    def _tell_in(self, folder: Path, name: str, draft: Draft, answers: Answers, before: Answers) -> None:
        """Writes the student's evaluation into the folder."""
        grades, parents = self._grades(answers), self._grades(before)
        self.page = write_report(
            name,
            folder,
            self.material,
            draft,
            answers=answers,
            grades=grades,
            before=parents,
            labels=self.bought.labels,
        )

    def _make_live(self, bundle: str) -> None:
        """A new student is tried beside a live bundle first, where the policy says so; once only, though the round
        be killed after it and go on."""
        active, bundles = read_active(self.material.bundles), self.material.bundles
        tried = {active.canary.bundle if active.canary else None, active.ended.bundle if active.ended else None}
        if bundle == active.bundle or bundle in tried:
            return
        if self.material.kind is RoundKind.TRAIN and active.bundle is not None and self.policy.distil.trial:
            begin_canary(bundles, bundle)
        else:
            activate(bundles, bundle)

    def _report(
        self,
        bundle: str | None,
        reasons: Sequence[str],
        answers: tuple[Answers, Answers],
        shares: tuple[float, float],
    ) -> RoundReport:
        """``answers`` and ``shares``: the candidate's, then the incumbent's."""
        m, seconds, labels = self.material, self.work.all_seconds, self.bought.labels
        rates = [grading.report(m.holdout, a, self._grades(a))["acceptable_rate"] if a else None for a in answers]
        return RoundReport(
            policy=self.policy.name,
            kind=m.kind.value,
            at=time.time(),
            bundle=bundle,
            parent=m.parent_id,
            reasons=(*reasons, *_left_out(m.dataset.skipped), *self.bought.words),
            counts=m.dataset.counts,
            skipped=dict(sorted((Counter(m.dataset.skipped) + Counter(self.left_out)).items())),
            acceptable_rate=rates[0],
            incumbent_rate=rates[1],
            share=shares[0],
            incumbent_share=shares[1],
            seconds=seconds,
            cost_usd=str(round_cost_usd(sum(seconds.values()), self.policy, self.paid_usd)),
            tally=asdict(m.tally),
            resumed=self.work.resumed,
            paid_usd=str(self.paid_usd),
            synthetic_run=self.bought.synthetic_run,
            labels_run=labels.run if labels else None,
            labels=asdict(labels) if labels else None,
            page=None if self.page is None else str(self.page),
        )


def _left_out(skipped: Mapping[str, int]) -> tuple[str, ...]:
    """What no student learns, and why."""
    redacted = skipped.get(Skip.REDACTED, 0)
    why = f"{redacted} records left out: redaction changed what was said (log.redact_except keeps a task's)"
    return (why,) if redacted else ()
