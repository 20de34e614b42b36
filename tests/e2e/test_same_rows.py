"""`locum status`, `dataset build`, `judge sample` and the round's own count take the same rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distiller.data.dataset import build
from distiller.rounds.trigger import Tally
from router.contracts.decision import Decision, Fallback, Reason, Tier
from router.contracts.records import Answer, AnswerKind, Audit, Record, Rights
from router.policy.policy import Policy
from router.reports.human_verdicts import sample
from router.reports.summary import Summary

PLAIN = 3
"""Of each kind, so that what is left out is told from what is counted once."""


def records() -> Iterator[tuple[bool, Record]]:
    """(whether it counts, a record) of every kind, drawn for audit and not."""
    kinds: list[tuple[bool, dict[str, Any]]] = [
        (True, {}),
        (True, {"reason": Reason.DEFERRAL}),
        (False, {"decided": Reason.OVERRIDE, "reason": Reason.OVERRIDE}),
        (False, {"reason": Reason.FALLBACK, "fallback": Fallback.TIMEOUT}),
        (False, {"fallback": Fallback.UNUSABLE}),
        (False, {"status": 499}),
        (False, {"request": None}),
        (False, {"redacted": True}),
        (False, {"answer": {"redacted": True}}),
        (False, {"answer": {"message": None}}),
        (False, {"answer": {"finish_reason": None}}),
        (False, {"answer": {"broken": True}}),
    ]
    for number, (counts, changes) in enumerate(kinds):
        for n in range(PLAIN):
            for audited in (False, True):
                yield counts, _record(f"{number}-{n}-{audited}", audited, **changes)


def _record(name: str, audited: bool, **changes: Any) -> Record:
    teacher = Answer(
        tier=Tier.TEACHER,
        kind=AnswerKind.SERVED,
        model="big",
        message={"role": "assistant", "content": f"answer {name}"},
        finish_reason="stop",
        training_rights=Rights.ALLOWED,
    )
    student = replace(teacher, tier=Tier.STUDENT, kind=AnswerKind.AUDITED, model="small")
    decided = Decision(tier=Tier.TEACHER, reason=changes.pop("decided", Reason.SCORE), audited=audited, propensity=0.5)
    question = f"{name.replace('-', ' ')} what of number {hash(name)}"
    values: dict[str, Any] = {
        "request_id": name,
        "conversation_id": name,
        "created_at": 1_000_000.0,
        "policy": "p",
        "policy_version": "1",
        "features_version": "1",
        "decision": decided,
        "tier": Tier.TEACHER,
        "reason": Reason.SCORE,
        "request": {"messages": [{"role": "user", "content": question}]},
        "answers": [replace(teacher, **changes.pop("answer", {}))],
        "audit": Audit(answer=student, acceptable=True, judge="exact") if audited else None,
    }
    return Record(**(values | changes))


@pytest.fixture
def policy() -> Policy:
    free = {"input": 0, "output": 0}
    return Policy.model_validate(
        {
            "name": "p",
            "student": {"model": "small", "url": "http://s/v1", "usd_per_million": free},
            "teacher": {"model": "big", "url": "http://t/v1", "usd_per_million": free, "training_rights": "allowed"},
            "objective": {"parity": {}},
            "log": {"redact": []},
        }
    )


def test_all_count_the_same_rows(policy: Policy, tmp_path: Path) -> None:
    found = list(records())
    right = sum(counts and not r.decision.audited for counts, r in found)
    summary, tally = Summary(), Tally()
    for seq, (_, record) in enumerate(found):
        summary.add(record, may_train=policy.may_train_on_teacher)
        tally = tally.add(seq, record, policy)
    dataset = build((r for _, r in found), policy, tmp_path)
    kept = dataset.counts["train"] + dataset.counts["dev"]
    twice = sum(n for reason, n in dataset.skipped.items() if "duplicate" in reason or "copy" in reason)
    assert summary.trainable == tally.trainable == kept + twice == right == 2 * PLAIN
    held = {r.request_id for r in sample((r for _, r in found), 1000, 0)}
    assert held == {r.request_id for counts, r in found if counts and r.decision.audited}
    assert dataset.counts["holdout"] <= len(held)
