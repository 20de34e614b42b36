"""A whole trial on real parts: a trained student beside a live bundle becomes a canary, and live by its audits."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest

from distiller.home import unfinished
from distiller.rounds.round import run_round
from distiller.rounds.trial import look
from router.contracts.bundles import NEVER, StudentRef, Thresholds, activate, read_active
from router.contracts.decision import Tier
from router.contracts.records import Audit
from router.contracts.rounds import canaries, history
from router.scoring.model import Example
from router.scoring.scorer import Scorer
from router.scoring.text.features import extract
from router.settings import Settings
from router.store.access import open_store
from tests.distiller.rounds.test_round import (  # noqa: F401  (fixtures are used by their names)
    configs,
    policy_of,
    tiny_student,
    traffic,
    transformer,
    write,
)
from tests.manifests import complete

pytestmark = pytest.mark.usefixtures("one_thread")


def live_bundle(bundles: Path, student: Path) -> None:
    """The untrained student with a scorer that trusts nothing: better than that is easily done."""
    features = extract({"messages": [{"role": "user", "content": "hello"}]})
    Scorer.fit([Example(features, None, False)] * 8, None).save(bundles / "weak" / "scorer")
    values = {"policy": "tickets", "created_at": 1.0, "student": StudentRef(model=str(student))}
    complete(bundles, "weak", thresholds=Thresholds(route=NEVER, accept=NEVER), **values)
    activate(bundles, "weak")


def test_a_new_student_is_tried_and_kept_though_the_round_was_killed(
    tiny_student: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings, policy = Settings(home=tmp_path / "home", cache=tmp_path / "cache"), policy_of(tiny_student)
    bundles, work = settings.bundles("tickets"), settings.work("tickets")
    live_bundle(bundles, tiny_student)
    write(settings, policy, traffic(520, seed=1))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("distiller.rounds.round.remember", killed)
        with pytest.raises(KeyboardInterrupt):
            run_round(policy, settings, configs=configs(), encoders=transformer)
    began = read_active(bundles)
    assert began.bundle == "weak" and began.canary is not None, "what was live is live"
    assert unfinished(work) is not None
    report = run_round(policy, settings, configs=configs(), encoders=transformer)
    assert report.resumed and report.bundle == began.canary.bundle
    assert read_active(bundles) == began, "it goes on as it began"
    assert (bundles / report.bundle / "student").is_dir()

    audits = [r for r in traffic(600, seed=4) if r.decision.audited]

    async def served() -> None:
        for record in audits:
            teacher = record.answers[0]
            store.append(replace(record, bundle=report.bundle, created_at=time.time()))
            drawn_at = policy.student.temperature
            answer = replace(teacher, tier=Tier.STUDENT, student_version=report.bundle, temperature=drawn_at)
            store.amend(record.request_id, audit=Audit(answer=answer, acceptable=True, judge="normalised"))
        await store.flush()

    store = open_store(settings, [policy])
    asyncio.run(served())
    store.close()
    looked = look(policy, settings, configs())
    assert looked is not None and "kept" in looked.told
    active = read_active(bundles)
    assert (active.bundle, active.previous, active.canary) == (report.bundle, "weak", None)
    (told,) = canaries(work)
    assert told["audits"] == len(audits) == 150 and told["gate"]["slices"][0]["incumbent"] < 0.5
    assert [r["bundle"] for r in history(work)] == [report.bundle]
