"""What a round works with, as far as it follows from the log and from what the guard found."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from distiller.bundles import LEARNT, Draft, write_bundle
from distiller.config import Configs, EvaluateConfig
from distiller.data.rows import DatasetRow
from distiller.home import RoundKind
from distiller.progress import SilentProgress
from distiller.rounds.material import Material
from distiller.synthesis.shelf import keep
from router.contracts.bundles import DatasetRef, Thresholds, activate
from router.contracts.decision import Decision, Reason, Tier
from router.contracts.guard_report import GuardReport, write_guarded
from router.contracts.records import Answer, AnswerKind, Audit, Record, Rights
from router.policy.policy import Policy
from router.scoring.scorer import Scorer
from router.settings import Settings
from router.store.access import open_store

POLICY = Policy.model_validate(
    {
        "name": "p",
        "student": {"model": "s", "url": "http://s", "usd_per_million": {"input": 0, "output": 0}},
        "teacher": {"model": "t", "training_rights": "allowed"},
        "objective": {"parity": {}},
    }
)


def audited(at: int) -> Record:
    """A request at a unix time that the teacher answered, drawn for audit."""
    answer: dict[str, Any] = {"role": "assistant", "content": f"answer {at}"}
    return Record(
        request_id=f"r{at}",
        conversation_id=f"c{at}",
        created_at=float(at),
        policy="p",
        policy_version="1",
        features_version="1",
        decision=Decision(tier=Tier.TEACHER, reason=Reason.SCORE, propensity=0.2, audited=True),
        tier=Tier.TEACHER,
        reason=Reason.SCORE,
        request={"messages": [{"role": "user", "content": f"question number {at * 7919} of {at}"}]},
        answers=[
            Answer(
                tier=Tier.TEACHER,
                kind=AnswerKind.SERVED,
                model="t",
                message=answer,
                finish_reason="stop",
                training_rights=Rights.ALLOWED,
            )
        ],
    )


def holdout(settings: Settings) -> list[str]:
    material = Material(POLICY, settings, kind=RoundKind.CALIBRATE, seed=0, configs=Configs(), tell=SilentProgress())
    return [q.request_id for q in material.holdout]


def test_what_a_teacher_wrote_by_itself_is_trained_on_and_nothing_is_measured_by_it(tmp_path: Path) -> None:
    settings, now = Settings(home=tmp_path), int(time.time())
    with closing(open_store(settings, [POLICY])) as store:
        store.append(audited(now))
    asked = [{"role": "user", "content": "a question that no client asked"}]
    keep(
        settings,
        "p",
        [DatasetRow("synthetic-1", "synthetic-1", now + 1.0, asked, "yes", "t", "allowed", synthetic=True)],
    )
    material = Material(POLICY, settings, kind=RoundKind.CALIBRATE, seed=0, configs=Configs(), tell=SilentProgress())
    assert material.dataset.counts == {"train": 1, "dev": 0, "holdout": 1}
    assert [q.request_id for q in material.dev] == []
    assert [q.request_id for q in material.holdout] == [f"r{now}"]


def test_audits_from_before_parity_broke_prove_nothing(tmp_path: Path) -> None:
    settings, now = Settings(home=tmp_path), int(time.time())
    with closing(open_store(settings, [POLICY])) as store:
        for at in range(now, now + 6):
            store.append(audited(at))
    assert len(holdout(settings)) == 6
    settings.bundles("p").mkdir(parents=True)
    write_guarded(settings.bundles("p"), GuardReport(bundle="b", changed_at=now + 3.0, route=1.01, accept=1.01))
    assert holdout(settings) == [f"r{now + 4}", f"r{now + 5}"]


def answered(at: int, student: str = "base") -> Record:
    """An audited request whose live student's answer is known."""
    record = audited(at)
    said = replace(
        record.answers[0], tier=Tier.STUDENT, kind=AnswerKind.AUDITED, student_version=student, temperature=0.0
    )
    return replace(record, audit=Audit(answer=said, acceptable=True, judge="exact"))


def test_what_refreshes_is_older_than_the_holdout_and_newer_than_what_was_learnt(tmp_path: Path) -> None:
    settings, now = Settings(home=tmp_path), int(time.time())
    bundles, floor = settings.bundles("p"), Thresholds(route=0.5, accept=0)
    draft = Draft(Scorer.fit([], None), floor, DatasetRef(sha256="0", train=0, dev=0, holdout=0))
    made = write_bundle(bundles, POLICY, replace(draft, learnt=frozenset({f"r{now + 1}", "r of old"})))
    activate(bundles, made.bundle_id)
    with closing(open_store(settings, [POLICY])) as store:
        for at in range(now, now + 8):
            store.append(audited(at) if at == now + 2 else answered(at))
    configs = Configs(evaluate=EvaluateConfig(max_holdout=4))

    def material() -> Material:
        return Material(POLICY, settings, kind=RoundKind.CALIBRATE, seed=0, configs=configs, tell=SilentProgress())

    found = material()
    assert [q.request_id for q in found.holdout] == [f"r{now + i}" for i in (4, 5, 6, 7)]
    assert [q.request_id for q in found.older] == [f"r{now}", f"r{now + 3}"], "one was learnt from, one is unknown"
    assert list(found.known_answers(found.older)) == [f"r{now}", f"r{now + 3}"]
    assert found.audited_ids([f"r{now + 1}", "r of old"]) == {f"r{now + 1}"}
    write_guarded(bundles, GuardReport(bundle="b", changed_at=now + 0.5, route=1.01, accept=1.01))
    assert [q.request_id for q in material().older] == [f"r{now + 3}"], "it is from before parity broke"


def test_of_a_bundle_that_kept_no_ids_only_what_came_later_refreshes(tmp_path: Path) -> None:
    settings, now = Settings(home=tmp_path), int(time.time())
    draft = Draft(
        Scorer.fit([], None), Thresholds(route=0.5, accept=0), DatasetRef(sha256="0", train=0, dev=0, holdout=0)
    )
    made = write_bundle(settings.bundles("p"), POLICY, draft, now=now + 2.5)
    activate(settings.bundles("p"), made.bundle_id)
    (settings.bundles("p") / made.bundle_id / LEARNT).unlink()
    with closing(open_store(settings, [POLICY])) as store:
        for at in range(now, now + 8):
            store.append(answered(at))
    configs = Configs(evaluate=EvaluateConfig(max_holdout=3))
    found = Material(POLICY, settings, kind=RoundKind.CALIBRATE, seed=0, configs=configs, tell=SilentProgress())
    assert [q.request_id for q in found.older] == [f"r{now + 3}", f"r{now + 4}"]
