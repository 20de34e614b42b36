"""Figures of a stretch of traffic."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import pytest

from router.contracts.decision import Decision, Reason, Tier
from router.contracts.records import Answer, AnswerKind, Audit, Record, Rights
from router.reports.summary import AuditOutcome, Summary, parity, quantile

MakeRecord = Callable[..., Record]
STUDENT, TEACHER = Tier.STUDENT, Tier.TEACHER


def test_parity_counts_only_bad_answers_that_clients_got() -> None:
    audits = [AuditOutcome(STUDENT, True, 0.02)] * 60 + [AuditOutcome(STUDENT, False, 0.02)] * 4
    audits += [AuditOutcome(TEACHER, False, 0.02)] * 36  # the student would have failed; the client never saw it
    found = parity(audits)
    assert (found.audits, found.student_served, found.unacceptable) == (100, 64, 4)
    assert found.estimate == pytest.approx(0.96)
    assert (found.low, found.high) == pytest.approx((0.9007, 0.9890), abs=1e-3)  # exact, 96 of 100


def test_no_audit_tells_nothing() -> None:
    found = parity([])
    assert (found.estimate, found.low, found.high) == (None, 0.0, 1.0)


def test_audits_drawn_more_often_count_for_less() -> None:
    # 1000 requests at a rate of 20%, all good, then 1000 at 2% of which half are bad: parity is 75%.
    audits = [AuditOutcome(STUDENT, True, 0.2)] * 200
    audits += [AuditOutcome(STUDENT, i % 2 == 0, 0.02) for i in range(20)]
    found = parity(audits)
    assert found.estimate == pytest.approx(0.75)
    assert found.low < 0.65 and found.high > 0.83  # wide: the effective sample is small


def test_the_truth_lies_in_the_interval_as_often_as_it_says() -> None:
    import random

    rng = random.Random(7)
    inside = 0
    for _ in range(400):
        found = parity(AuditOutcome(STUDENT, rng.random() < 0.93, 0.02) for _ in range(150))
        inside += found.low <= 0.93 <= found.high
    assert inside / 400 >= 0.92


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
    assert summary.share(STUDENT) == 0.75
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
    assert {b: len(a) for b, a in summary.audits.items()} == {"b-1": 1, "b-2": 2}
    assert summary.missed_audits == {"budget": 1}


def test_quantiles_are_of_what_was_seen() -> None:
    assert quantile([], 0.5) is None
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([1.0], 0.95) == 1.0
