"""What a round works with: its dataset, its questions, the student that is live, and both students' answers."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

from distiller.bundles import ANSWERS, DATASET, LEARNT, StudentFiles, has_weights, manifests, same_student, served_form
from distiller.config import Configs, GateConfig
from distiller.data import dataset as datasets
from distiller.data import files
from distiller.data.rows import DatasetRow
from distiller.evaluation.answers import StudentAnswer, StudentQuestion, keep_answers, read_answers
from distiller.evaluation.engine import way_to
from distiller.evaluation.grading import live_answer, newest, question
from distiller.home import RoundKind, Work
from distiller.labels.run import labelled_rows
from distiller.progress import Progress
from distiller.rounds.trigger import Tally
from distiller.synthesis.shelf import kept as kept_rows
from router.contracts.bundles import Manifest, read_active, read_manifest
from router.contracts.decision import Reason
from router.contracts.guard_report import read_guarded
from router.contracts.records import Record
from router.engine.template import kept_template
from router.errors import BundleError
from router.policy.policy import Policy
from router.scoring.text.encoder import kept_encoder
from router.settings import Settings
from router.store.access import reading

INCUMBENT = "incumbent.jsonl"
UNLABELLED = "unlabelled"
"""The folder of what a label teacher is asked for, and the right by which its rows would be trained on."""
MAX_WEIGHT = 20.0
"""What one explored request may count for at most, however rare exploration is."""


class Material:
    """Opened once for a round; everything in it is made when it is first asked for, and kept in ``work``."""

    def __init__(
        self, policy: Policy, settings: Settings, *, kind: RoundKind, seed: int, configs: Configs, tell: Progress
    ) -> None:
        self.policy, self.settings, self.kind = policy, settings, kind
        self.configs, self.tell = configs, tell
        self.bundles = settings.bundles(policy.name)
        self.parent = live_bundle(self.bundles)
        guarded = read_guarded(self.bundles)
        self._changed_at = guarded.changed_at if guarded else 0.0
        key = {"kind": kind.value, "parent": self.parent_id, "policy": policy.version, "seed": seed}
        key["data"] = datasets.VERSION
        self.work = Work.open(settings.work(policy.name), key)

    @property
    def gate(self) -> GateConfig:
        return self.configs.gate or GateConfig.from_policy(self.policy)

    @property
    def parent_id(self) -> str | None:
        return self.parent.bundle_id if self.parent else None

    def own(self, name: str) -> Path | None:
        """A file or folder of the live bundle; None where it has none, as where the base student is live."""
        path = self.bundles / self.parent.bundle_id / name if self.parent else None
        return path if path and path.exists() else None

    @property
    def incumbent(self) -> StudentFiles:
        """The live student as it serves: the live bundle's, or the base student."""
        return served_form(self.bundles, self.parent_id, self.policy.student.model)

    @cached_property
    def dataset(self) -> datasets.Dataset:
        self.found  # noqa: B018  (builds it)
        return datasets.load(self.work.folder / DATASET)

    @cached_property
    def tally(self) -> Tally:
        return Tally(**self.found["tally"])

    @cached_property
    def found(self) -> dict[str, Any]:
        """What reading the log found beside the dataset: its tally, and explored requests' weights."""
        self.tell.stage("dataset", "reading the log")
        return self.work.stage("dataset", self._read_log)

    def unlabelled(self) -> list[DatasetRow]:
        """Rows that would be trained on if their teacher's answers might be: what a label teacher is asked for."""
        out = self.work.folder / UNLABELLED
        with reading(self.settings) as log:
            records = chain(log.history(self.policy.name), log.records(self.policy.name))
            built = self._build((record for _, record in records), out, lambda row: replace(row, rights=UNLABELLED))
        rows = [row for row in datasets.read(built.train) if row.rights == UNLABELLED]
        shutil.rmtree(out)
        return rows

    def _build(
        self, records: Iterator[Record], out: Path, labelled: Callable[[DatasetRow], DatasetRow]
    ) -> datasets.Dataset:
        return datasets.build(
            records,
            self.policy,
            out,
            self.configs.dataset,
            self.own(DATASET),
            written=kept_rows(self.settings, self.policy),
            labelled=labelled,
            encoder=partial(kept_encoder, self.settings.cache),
            template=partial(kept_template, self.policy.student.model, self.settings.cache),
        )

    def _read_log(self) -> dict[str, Any]:
        versions = same_student(self.bundles, self.parent_id)
        answers: list[StudentAnswer] = []
        weights: dict[str, float] = {}
        tally = Tally()

        def read(log: Iterator[tuple[int, Record]]) -> Iterator[Record]:
            nonlocal tally
            for seq, record in log:
                tally = tally.add(seq, record, self.policy)
                if record.reason is Reason.EXPLORATION and record.decision.exploration > 0:
                    weights[record.request_id] = min(MAX_WEIGHT, 1 / record.decision.exploration)
                if answer := live_answer(record, versions, self.policy.student.temperature):
                    answers.append(answer)
                yield record

        with reading(self.settings) as log:
            records = read(chain(log.history(self.policy.name), log.records(self.policy.name)))
            labels = labelled_rows(self.work.folder)
            self._build(records, self.work.folder / DATASET, lambda row: labels.get(row.request_id, row))
        kept = self.own(ANSWERS)
        before = read_answers(kept, self.policy.student.temperature).values() if kept else ()
        keep_answers(self.work.folder / INCUMBENT, [*before, *answers])
        return {"tally": asdict(tally), "weights": weights}

    @cached_property
    def holdout(self) -> list[StudentQuestion]:
        """The newest audited rows: a uniform sample of the traffic that no student was trained on. Where parity
        broke, what came before tells nothing of today's traffic."""
        rows = [r for r in self._audited if r.created_at > self._changed_at]
        return self._questions(newest(rows, self.configs.evaluate.max_holdout))

    @cached_property
    def _audited(self) -> list[DatasetRow]:
        return datasets.read(self.dataset.holdout)

    @cached_property
    def dev(self) -> list[StudentQuestion]:
        """Rows to fit the scorer on. For a student that is not trained again, training rows that came
        after it count too, since it has never seen them, and audited rows too old for the holdout."""
        rows = datasets.read(self.dataset.dev)
        if self.kind is RoundKind.CALIBRATE:
            rows += [r for r in datasets.read(self.dataset.train) if r.created_at > self._made_at() and not r.synthetic]
            rows += self._too_old
        return self._questions(newest(rows, self.configs.evaluate.max_dev))

    @property
    def _too_old(self) -> list[DatasetRow]:
        """Audited rows too old for the holdout, whose live answers are known."""
        held, known = {q.request_id for q in self.holdout}, self._known
        return [r for r in self._audited if r.request_id in known and r.request_id not in held]

    @cached_property
    def older(self) -> list[StudentQuestion]:
        """What may refresh the live scorer and does not certify: audited rows too old for the holdout, but not from
        before parity broke, that it has not learnt from. Nothing is known of what a bundle learnt that kept no
        ids, so there they must be newer than it."""
        since = self._changed_at
        if self.parent is not None and self.own(LEARNT) is None:
            since = max(since, self.parent.created_at)
        rows = [r for r in self._too_old if r.created_at > since and r.request_id not in self.learnt]
        return self._questions(newest(rows, self.configs.evaluate.max_dev))

    @cached_property
    def learnt(self) -> frozenset[str]:
        """The audited requests that the live scorer has learnt from, by id."""
        kept = self.own(LEARNT)
        return files.ids(kept) if kept else frozenset()

    def audited_ids(self, ids: Iterable[str]) -> frozenset[str]:
        """Those of these requests that were audited: no other could ever certify."""
        return frozenset(r.request_id for r in self._audited).intersection(ids)

    def _questions(self, rows: Sequence[DatasetRow]) -> list[StudentQuestion]:
        weights = self.found["weights"]
        return [question(row, weights.get(row.request_id, 1.0)) for row in rows]

    def _made_at(self) -> float:
        """When the live student's weights were made; 0 for the base student."""
        if self.parent is None or self.parent.student.path is None:
            return 0.0
        alike = same_student(self.bundles, self.parent_id)
        return min(m.created_at for m in manifests(self.bundles) if m.bundle_id in alike)

    def live_answers(self) -> dict[str, StudentAnswer]:
        """What is known of the live student's answers to the holdout without asking it."""
        return self.known_answers(self.holdout)

    def known_answers(self, questions: Sequence[StudentQuestion]) -> dict[str, StudentAnswer]:
        """What the live student answered to these before this round asked anything."""
        return {q.request_id: self._known[q.request_id] for q in questions if q.request_id in self._known}

    @cached_property
    def _known(self) -> dict[str, StudentAnswer]:
        """The live student's answers that its bundle or the log had kept before this round asked any."""
        self.found  # noqa: B018  (collects them)
        return read_answers(self.work.folder / INCUMBENT)

    def ask(
        self, stage: str, student: StudentFiles, kept: str, questions: Sequence[StudentQuestion]
    ) -> dict[str, StudentAnswer]:
        """The student's answers in the form that will serve; those in file ``kept`` are not asked again."""
        path = self.work.folder / kept

        def missing() -> dict[str, Any]:
            known = read_answers(path)
            if all(q.request_id in known for q in questions):
                return {"asked": 0}
            config = self.configs.evaluate
            with way_to(student, self.policy, self.settings, config, self.tell.step) as asker:
                asker.ask(questions, path)
            return {"asked": sum(q.request_id not in known for q in questions)}

        self.tell.stage(stage, f"asking {len(questions)} prompts")
        self.work.stage(stage, missing)
        answers = read_answers(path)
        return {q.request_id: answers[q.request_id] for q in questions}


def live_bundle(bundles: Path) -> Manifest | None:
    """The live bundle, None for the base student alone. Raises BundleError where its weights are gone."""
    live = read_active(bundles).bundle
    manifest = read_manifest(bundles, live) if live else None
    if manifest and not has_weights(bundles, manifest):
        raise BundleError(f"the live bundle {live} has lost its weights; activate another one first")
    return manifest
