"""The whole round on real parts: a tiny student is trained, served by the real engine, gated, published.

The student is a two-layer Llama with random weights; the traffic is synthetic tickets whose team follows
from one word, which such a model learns in seconds. Its scorers read with a tiny transformer, by the policy's choice.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from distiller.bundles import INT8, LEARNT, manifests, weights_sha256
from distiller.config import Configs, EvaluateConfig, TrainConfig
from distiller.home import RoundKind, unfinished
from distiller.progress import SilentProgress
from distiller.rounds.round import run_round
from distiller.rounds.trigger import count, due
from router.contracts.bundles import read_active
from router.contracts.decision import Tier
from router.contracts.records import Answer, AnswerKind, Audit, Record
from router.contracts.rounds import history
from router.scoring.files import encoder_of
from router.scoring.text.transformer import TransformerEncoder
from router.settings import Settings
from router.store.access import open_readonly
from tests.distiller.tickets import make_student, policy_of, traffic, write
from tests.tiny import tiny_transformer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tiny_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_student(tmp_path_factory.mktemp("tiny"))


def configs() -> Configs:
    return Configs(
        evaluate=EvaluateConfig(max_dev=60, max_holdout=140),
        train=TrainConfig(
            epochs=10,
            learning_rate=3e-3,
            batch_size=32,
            precision="fp32",
            device="cpu",
            threads=1,
            freeze_embeddings=False,
        ),
    )


class Killer(SilentProgress):
    """Ends the round, as a kill would, when it comes to ``stage``."""

    def __init__(self, stage: str) -> None:
        self.at = stage
        self.seen: list[str] = []

    def stage(self, name: str, detail: str = "") -> None:
        self.seen.append(name)
        if name == self.at:
            raise KeyboardInterrupt


@cache
def transformer(cache: Path, kind: str) -> TransformerEncoder:
    """What the policy says that its scorers read with."""
    assert kind == "transformer"
    return tiny_transformer()


@pytest.fixture(scope="module")
def after_first_round(tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A home whose first round was killed before the gate, and then went on."""
    settings = Settings(home=tmp_path_factory.mktemp("home"), cache=tmp_path_factory.mktemp("cache"))
    policy = policy_of(tiny_student)
    write(settings, policy, traffic(520, seed=1))
    killer = Killer("fit")
    with pytest.raises(KeyboardInterrupt):
        run_round(policy, settings, configs=configs(), tell=killer, encoders=transformer)
    trained = settings.work(policy.name) / "current" / "student"
    facts: dict[str, Any] = {"killed_at": weights_sha256(trained), "unfinished": unfinished(settings.work(policy.name))}
    answers = (settings.work(policy.name) / "current" / "answers.jsonl").read_bytes()
    write(settings, policy, traffic(40, seed=2))  # traffic goes on meanwhile
    seen = Killer("never")
    report = run_round(policy, settings, configs=configs(), tell=seen, encoders=transformer)
    return facts | {"settings": settings, "policy": policy, "report": report, "answers": answers, "seen": seen.seen}


def test_a_round_makes_a_better_student_and_makes_it_live(after_first_round: dict[str, Any]) -> None:
    report, settings = after_first_round["report"], after_first_round["settings"]
    assert report.promoted, report.reasons
    assert report.incumbent_rate is not None and report.incumbent_rate < 0.3
    assert report.acceptable_rate > 0.8
    assert report.share > 0.5
    bundles = settings.bundles("tickets")
    assert read_active(bundles).bundle == report.bundle
    (manifest,) = manifests(bundles)
    assert manifest.student.sha256 == weights_sha256(bundles / report.bundle / "student")
    assert (manifest.student.form, manifest.student.int8) == ("int8", INT8), "what was judged is what serves"
    assert manifest.student.exports == {INT8: weights_sha256(bundles / report.bundle / INT8)}
    assert manifest.dataset.train == report.counts["train"]
    assert manifest.thresholds.evidence is not None
    assert manifest.gate["promoted"]
    assert encoder_of(bundles / report.bundle / manifest.scorer) == "transformer"
    assert float(manifest.cost_usd) > 0
    assert set(report.seconds) >= {"dataset", "train", "evaluate", "incumbent", "fit", "publish"}


def test_a_killed_round_goes_on_where_it_stopped_with_the_data_it_began_with(
    after_first_round: dict[str, Any],
) -> None:
    report, settings = after_first_round["report"], after_first_round["settings"]
    assert after_first_round["unfinished"] is RoundKind.TRAIN
    assert report.resumed
    (manifest,) = manifests(settings.bundles("tickets"))
    assert manifest.student.sha256 == after_first_round["killed_at"]
    kept = (settings.bundles("tickets") / report.bundle / "answers.jsonl").read_bytes()
    assert kept == after_first_round["answers"]
    assert unfinished(settings.work("tickets")) is None


def test_the_same_data_starts_no_second_round(after_first_round: dict[str, Any]) -> None:
    settings, policy = after_first_round["settings"], after_first_round["policy"]
    log = open_readonly(settings)
    wanted, _ = due(policy, count(log, policy), history(settings.work("tickets")))
    log.close()
    assert wanted is None


def test_tuning_anew_keeps_the_student_and_asks_only_what_live_audits_did_not(
    after_first_round: dict[str, Any],
) -> None:
    settings, policy, first = (after_first_round[k] for k in ("settings", "policy", "report"))
    fresh = [r for r in traffic(120, seed=3) if r.decision.audited]
    write(settings, policy, answered_live(fresh, first.bundle))
    report = run_round(policy, settings, kind=RoundKind.CALIBRATE, configs=configs(), encoders=transformer)
    assert report.promoted, report.reasons
    bundles = settings.bundles("tickets")
    old, new = manifests(bundles)[-2:]
    assert new.student == old.student
    assert new.parent == old.bundle_id
    assert new.dataset == old.dataset
    assert old.thresholds.evidence and new.thresholds.evidence
    assert new.thresholds.evidence.examples > old.thresholds.evidence.examples
    fit = new.evaluation["scorer"]
    assert fit["kept_from"] == old.bundle_id and fit["refreshed_on"] > 0
    assert len((bundles / new.bundle_id / LEARNT).read_text().splitlines()) >= fit["refreshed_on"]
    assert read_active(bundles).bundle == new.bundle_id


def answered_live(records: list[Record], version: str) -> list[Record]:
    """The records with the live student's answers where they were audited: the teacher's word."""

    def audit(teacher: Answer) -> Audit:
        said = {"tier": Tier.STUDENT, "kind": AnswerKind.AUDITED, "student_version": version, "temperature": 0.0}
        return Audit(answer=replace(teacher, **said))

    return [replace(r, audit=audit(r.answers[0])) if r.decision.audited else r for r in records]


def test_a_student_spoiled_by_wrong_answers_is_rejected_and_what_was_live_stays(
    after_first_round: dict[str, Any],
) -> None:
    settings, policy = after_first_round["settings"], after_first_round["policy"]
    before = read_active(settings.bundles("tickets"))
    spoiling = traffic(520, seed=9, label=lambda word: "delivery")
    write(settings, policy, answered_live(spoiling, before.bundle))
    report = run_round(policy, settings, configs=configs(), encoders=transformer)
    assert not report.promoted
    assert any("lower bound" in reason for reason in report.reasons)
    assert read_active(settings.bundles("tickets")) == before
    assert history(settings.work("tickets"))[-1]["bundle"] is None
    page = settings.work("tickets") / "rejected" / "report.html"
    assert report.page == str(page) and "Gate: rejected" in page.read_text() and "lower bound" in page.read_text()
