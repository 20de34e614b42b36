"""What a record says beyond its fields."""

from __future__ import annotations

import pytest

from router.contracts.decision import Decision, Reason, Tier
from router.contracts.records import Audit, Record

STUDENT, TEACHER = Tier.STUDENT, Tier.TEACHER


@pytest.mark.parametrize(
    ("tier", "audit", "feedback", "student", "teacher"),
    [
        (TEACHER, None, None, None, None),
        (TEACHER, Audit(acceptable=False), None, None, None),
        (TEACHER, Audit(acceptable=True, teacher_acceptable=True), None, True, True),
        (STUDENT, Audit(acceptable=False, teacher_acceptable=True), None, False, True),
        (STUDENT, Audit(acceptable=True, teacher_acceptable=False), None, None, False),
        (STUDENT, Audit(acceptable=True, teacher_acceptable=False, student_acceptable=True), 0.0, True, False),
        (STUDENT, None, 1.0, True, None),
        (STUDENT, Audit(acceptable=False), 0.0, False, None),
        (TEACHER, Audit(acceptable=False), 0.9, False, True),
        (TEACHER, None, 0.5, None, None),
        (None, None, 1.0, None, None),
    ],
)
def test_each_tiers_answer_is_right_by_who_can_tell_without_comparing_else_by_who_got_it(
    tier: Tier | None, audit: Audit | None, feedback: float | None, student: bool | None, teacher: bool | None
) -> None:
    record = Record(
        request_id="r",
        conversation_id="c",
        created_at=1.0,
        policy="p",
        policy_version="v",
        features_version="1",
        decision=Decision(tier=TEACHER, reason=Reason.SCORE),
        reason=Reason.SCORE,
        tier=tier,
        audit=audit,
        feedback=feedback,
    )
    assert (record.right(STUDENT), record.right(TEACHER)) == (student, teacher)
