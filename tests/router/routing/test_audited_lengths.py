"""What the teacher alone would have cost goes by how long audits show its answers to be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.contracts.decision import Reason, Tier
from router.contracts.records import Answer, AnswerKind, Audit, LengthBasis, Record, Usage
from router.routing.lengths import KEPT_PAIRS, LEAST_PAIRS, AuditedLengths
from tests.fakes import until, world

MakeRecord = Callable[..., Record]
SAID = Usage(input_tokens=100, output_tokens=10)


def audited(make_record: MakeRecord, tokens: int, **changes: Any) -> Record:
    """The student's answer of ten tokens, and an audit's of the teacher of so many."""
    usage = Usage(input_tokens=100, output_tokens=tokens)
    teacher = Answer(tier=Tier.TEACHER, kind=AnswerKind.AUDITED, model="big", finish_reason="stop", usage=usage)
    return make_record(**{"audit": Audit(answer=teacher)} | changes)


def test_a_task_with_enough_audits_has_its_own_ratio_and_others_the_policys(make_record: MakeRecord) -> None:
    lengths = AuditedLengths()
    assert lengths.expected("label", SAID) == (SAID, LengthBasis.STUDENT)
    for _ in range(LEAST_PAIRS):
        lengths.observe(audited(make_record, 300, task="label"))
    for _ in range(LEAST_PAIRS - 1):
        lengths.observe(audited(make_record, 20, task="rare"))
    assert lengths.expected("label", SAID) == (replace(SAID, output_tokens=300), LengthBasis.TASK)
    pooled = round((300 * LEAST_PAIRS + 20 * (LEAST_PAIRS - 1)) / (2 * LEAST_PAIRS - 1))
    for task in ("rare", "unheard of", None):
        assert lengths.expected(task, SAID) == (replace(SAID, output_tokens=pooled), LengthBasis.POLICY)


def test_the_newest_audits_hold(make_record: MakeRecord) -> None:
    lengths = AuditedLengths()
    for tokens in (900, 40):
        for _ in range(KEPT_PAIRS):
            lengths.observe(audited(make_record, tokens))
    assert lengths.expected(None, SAID)[0].output_tokens == 40


@pytest.mark.parametrize(
    "changes",
    [
        {"reason": Reason.FALLBACK},
        {"tier": Tier.TEACHER},  # what the student says to what it does not serve is no measure of what it does
        {"audit": None},
        {"audit": Audit(missed="budget")},
        {"answers": []},
    ],
)
def test_what_tells_nothing_of_lengths_is_passed_over(make_record: MakeRecord, changes: dict[str, Any]) -> None:
    lengths, cut = AuditedLengths(), audited(make_record, 900)
    assert cut.audit is not None and cut.audit.answer is not None
    cut.audit.answer.finish_reason = None
    for _ in range(2 * LEAST_PAIRS):
        lengths.observe(audited(make_record, 900, **changes))
        lengths.observe(cut)
    assert lengths.expected(None, SAID) == (SAID, LengthBasis.STUDENT)


def test_a_terse_student_is_credited_with_the_answers_that_the_teacher_would_have_given(tmp_path: Path) -> None:
    def asked() -> Record:
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
        answer = httpx.post(f"{proxy.url}/v1/chat/completions", json=body, timeout=60)
        record: Record = proxy.record(answer.headers["x-locum-request-id"])
        saved = record.counterfactual_usd - record.answers[0].cost_usd
        assert Decimal(answer.headers["x-locum-saved-usd"]) == saved
        return record

    audit = {"rate": 1.0, "warmup_rate": 1.0, "explore": 0, "usd_per_day": 100}
    with world(tmp_path, audit=audit) as proxy:
        until(lambda: httpx.get(f"{proxy.url}/health/ready").json()["policies"][0]["student"]["ready"])
        proxy.teacher.always(usage={"prompt_tokens": 100, "completion_tokens": 200, "total_tokens": 300})
        first = asked()
        assert (first.counterfactual_by, first.counterfactual_tokens) == (LengthBasis.STUDENT, 10)
        for _ in range(LEAST_PAIRS):
            asked()
        last = until(lambda: found if (found := asked()).counterfactual_by is LengthBasis.POLICY else None)
    assert last.counterfactual_tokens == 200
    assert last.counterfactual_usd == Decimal("0.0007")  # 100 tokens in at a dollar a million, 200 out at three
