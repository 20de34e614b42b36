"""What a round works with, as far as it follows from the log and from what the guard found."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import Any

from distiller.material import Material
from distiller.reports import Configs, Silent
from distiller.trigger import Due
from router.contracts.decision import Decision, Reason, Tier
from router.contracts.guarded import Guarded, write_guarded
from router.contracts.records import Answer, Kind, Record, Rights
from router.policy import Policy
from router.settings import Settings
from router.store.base import open_store

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
                kind=Kind.SERVED,
                model="t",
                message=answer,
                finish_reason="stop",
                training_rights=Rights.ALLOWED,
            )
        ],
    )


def holdout(settings: Settings) -> list[str]:
    material = Material(POLICY, settings, kind=Due.CALIBRATE, seed=0, configs=Configs(), tell=Silent())
    return [q.request_id for q in material.holdout]


def test_audits_from_before_parity_broke_prove_nothing(tmp_path: Path) -> None:
    settings, now = Settings(home=tmp_path), int(time.time())
    with closing(open_store(settings, [POLICY])) as store:
        for at in range(now, now + 6):
            store.append(audited(at))
    assert len(holdout(settings)) == 6
    settings.bundles("p").mkdir(parents=True)
    write_guarded(settings.bundles("p"), Guarded(bundle="b", changed_at=now + 3.0, route=1.01, accept=1.01))
    assert holdout(settings) == [f"r{now + 4}", f"r{now + 5}"]
