"""Figures of a stretch of traffic."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

from router.contracts.decision import Decision, Reason, Tier
from router.contracts.records import Answer, AnswerKind, Audit, Record, Rights
from router.reports.summary import Summary, quantile

MakeRecord = Callable[..., Record]
STUDENT, TEACHER = Tier.STUDENT, Tier.TEACHER


def test_money_is_counted_by_tier_and_kind_and_may_be_lost(make_record: MakeRecord) -> None:
    summary = Summary()
    teacher = Answer(tier=TEACHER, kind=AnswerKind.AUDITED, model="t", cost_usd=Decimal("0.01"))
    summary.add(make_record("a", audit=Audit(answer=teacher, acceptable=True)), may_train=True)
    summary.add(make_record("b"), may_train=True)
    assert summary.spend[STUDENT, AnswerKind.SERVED] == Decimal("0.0010")
    assert summary.spend[TEACHER, AnswerKind.AUDITED] == Decimal("0.01")
    assert summary.saved_usd == Decimal("0.004") - Decimal("0.011")


def test_shares_are_of_what_was_answered(make_record: MakeRecord) -> None:
    summary = Summary()
    for i in range(3):
        summary.add(make_record(f"s{i}"), may_train=True)
    summary.add(make_record("t", tier=TEACHER, reason=Reason.DEFERRAL), may_train=True)
    summary.add(make_record("x", tier=None, status=502, reason=Reason.FALLBACK), may_train=True)
    assert (summary.requests, summary.unanswered) == (5, 1)
    assert summary.student_share == 0.75
    assert summary.escalations == 1


def test_only_what_may_be_trained_on_is_counted_as_trainable(make_record: MakeRecord) -> None:
    drawn = Decision(tier=TEACHER, reason=Reason.SCORE, propensity=0.02, audited=True)
    unknown = make_record("u", tier=TEACHER)
    unknown.answers[0] = replace(unknown.answers[0], training_rights=Rights.UNKNOWN)
    cases = [
        (make_record("ok", tier=TEACHER), 1),
        (make_record("student's"), 0),
        (make_record("no text", tier=TEACHER, request=None), 0),
        (make_record("held out", tier=TEACHER, decision=drawn), 0),
        (unknown, 0),
    ]
    for record, trainable in cases:
        summary = Summary()
        summary.add(record, may_train=False)
        assert summary.trainable == trainable, record.request_id
    summary = Summary()
    summary.add(unknown, may_train=True)
    assert summary.trainable == 1


def test_audits_of_two_bundles_are_never_added_up(make_record: MakeRecord) -> None:
    summary = Summary()
    for bundle in ("b-1", "b-2", "b-2"):
        summary.add(make_record(bundle, bundle=bundle, audit=Audit(acceptable=True)), may_train=True)
    summary.add(make_record("m", audit=Audit(missed="budget")), may_train=True)
    assert {b: q.parity().audits for b, q in summary.quality.items()} == {"b-1": 1, "b-2": 2}
    assert summary.missed_audits == {"budget": 1}


def test_quantiles_are_of_what_was_seen() -> None:
    assert quantile([], 0.5) is None
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([1.0], 0.95) == 1.0
