"""Which teacher answers may be trained on: the policy's word, the record's, and no guessing in between."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distiller.data.rights import ALLOWED, STATED, Ledger, admissible, right_to
from router.contracts.decision import Tier
from router.contracts.records import Audit, Record, Rights
from router.policy.policy import Policy, is_model
from tests.distiller.tiny_student import policy, record


def right(asked: Record, by: Policy) -> str | None:
    answer = asked.answer_of(Tier.TEACHER)
    assert answer is not None
    return right_to(answer, by)


@pytest.mark.parametrize("rights", [Rights.FORBIDDEN, Rights.UNKNOWN])
def test_neither_forbidden_nor_unknown_is_trained_on(rights: Rights) -> None:
    by = policy(training_rights="unknown")
    assert not admissible(record(1, "a", "b", rights=rights), by)
    assert right(record(1, "a", "b", rights=Rights.ALLOWED), by) == ALLOWED


def test_the_policy_states_a_right_by_name() -> None:
    by = policy(training_rights="forbidden", i_have_the_right_to_train_on=["openai/gpt-5"])
    assert right(record(1, "a", "b", rights=Rights.FORBIDDEN), by) == STATED
    assert right(record(1, "a", "b", rights=Rights.FORBIDDEN, model="gpt-5-2025-08-07"), by) == STATED
    assert right(record(1, "a", "b", rights=Rights.FORBIDDEN, model="anthropic/claude-opus-4-5"), by) is None


def test_todays_policy_overrules_what_was_recorded_for_its_own_teacher_only() -> None:
    forbidding, allowing = policy(training_rights="forbidden"), policy(training_rights="allowed")
    assert right(record(1, "a", "b", rights=Rights.ALLOWED), forbidding) is None
    assert right(record(1, "a", "b", rights=Rights.UNKNOWN), allowing) == ALLOWED
    assert right(record(1, "a", "b", rights=Rights.UNKNOWN, model="other/model"), allowing) is None


@pytest.mark.parametrize(
    ("answered", "named", "same"),
    [
        ("openai/gpt-5", "openai/gpt-5", True),
        ("gpt-5", "openai/gpt-5", True),
        ("gpt-5-2025-08-07", "openai/gpt-5", True),
        ("gpt-5-20250807", "gpt-5", True),
        ("gpt-5-mini", "openai/gpt-5", False),
        ("azure/gpt-5", "openai/gpt-5", False),
        ("gpt-5", "openai/gpt-5-mini", False),
        ("gptx5", "gpt.5", False),
    ],
)
def test_a_name_means_one_model_with_or_without_provider_and_date(answered: str, named: str, same: bool) -> None:
    assert is_model(answered, named) is same


def test_a_record_without_a_teachers_answer_is_not_admissible() -> None:
    bare = replace(record(1, "a", "b"), answers=[])
    assert not admissible(bare, policy())
    audited = replace(bare, audit=Audit(answer=record(1, "a", "b").answers[0]))
    assert admissible(audited, policy())


def test_the_ledger_counts_by_model_and_right_and_survives_writing() -> None:
    ledger = Ledger()
    ledger.use("m", ALLOWED)
    ledger.use("m", ALLOWED)
    ledger.refuse(record(1, "a", "b", rights=Rights.UNKNOWN, model="n").answers[0])
    assert ledger.as_dict() == {"used": {"m: allowed": 2}, "refused": {"n: unknown": 1}}
    assert Ledger.from_dict(ledger.as_dict()) == ledger
