"""Parity by audits, of a bundle and of its tasks beside a floor."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import pytest

from router.contracts.decision import Decision, Reason, Tier
from router.contracts.records import Audit, Record
from router.policy.objective import Parity
from router.reports.quality import Quality

MakeRecord = Callable[..., Record]
STUDENT, TEACHER = Tier.STUDENT, Tier.TEACHER


@pytest.fixture
def quality(make_record: MakeRecord) -> Callable[..., Quality]:
    """``quality(*(tier, verdict, propensity, times))``: a verdict of None is a request that was not judged."""

    def made(*parts: tuple[Tier, bool | None, float, int], every: Iterable[Record] = ()) -> Quality:
        found = Quality()
        for tier, verdict, rate, times in parts:
            decision = Decision(tier=tier, reason=Reason.SCORE, propensity=rate)
            audit = None if verdict is None else Audit(acceptable=verdict)
            for _ in range(times):
                found.add(make_record(tier=tier, decision=decision, audit=audit))
        for record in every:
            found.add(record)
        return found

    return made


def test_parity_is_one_less_what_the_student_answers_times_what_of_it_is_bad(quality: Callable[..., Quality]) -> None:
    judged = (STUDENT, True, 0.02, 60), (STUDENT, False, 0.02, 4), (TEACHER, False, 0.02, 36)
    found = quality(*judged, (STUDENT, None, 0.02, 900)).parity()
    assert (found.audits, found.student_served, found.unacceptable) == (100, 64, 4)
    assert found.estimate == pytest.approx(1 - 0.964 * 4 / 64)
    assert (found.low, found.high) == pytest.approx((1 - 0.964 * 0.1524, 1 - 0.964 * 0.0173), abs=1e-3)  # exact, of 64


def test_no_audit_tells_nothing_of_what_the_student_answers(quality: Callable[..., Quality]) -> None:
    found = quality((STUDENT, None, 0.0, 30), (TEACHER, True, 0.1, 10)).parity()
    assert (found.estimate, found.low, found.high) == (None, 0.25, 1.0)


def test_what_the_teacher_answers_is_as_good_as_the_teachers(quality: Callable[..., Quality]) -> None:
    found = quality((TEACHER, None, 0.0, 30)).parity()
    assert (found.estimate, found.low, found.high) == (1.0, 1.0, 1.0)


def test_audits_drawn_more_often_count_for_less(quality: Callable[..., Quality]) -> None:
    # 1000 requests at a rate of 20%, all good, then 1000 at 2% of which half are bad: parity is 75%.
    found = quality((STUDENT, True, 0.2, 200), (STUDENT, True, 0.02, 10), (STUDENT, False, 0.02, 10)).parity()
    assert found.estimate == pytest.approx(0.75)
    assert found.low < 0.65 and found.high > 0.83  # wide: the effective sample is small


def test_the_truth_lies_in_the_interval_as_often_as_it_says(quality: Callable[..., Quality]) -> None:
    rng = random.Random(7)
    inside = 0
    for _ in range(400):
        bad = sum(rng.random() >= 0.93 for _ in range(150))
        found = quality((STUDENT, True, 0.02, 150 - bad), (STUDENT, False, 0.02, bad)).parity()
        inside += found.low <= 0.93 <= found.high
    assert inside / 400 >= 0.92


def test_what_was_forced_or_not_answered_counts_for_nothing(
    quality: Callable[..., Quality], make_record: MakeRecord
) -> None:
    forced = Decision(tier=STUDENT, reason=Reason.OVERRIDE, propensity=0.02)
    others = (
        make_record(decision=forced, reason=Reason.OVERRIDE, audit=Audit(acceptable=False)),
        make_record(reason=Reason.FALLBACK, audit=Audit(acceptable=False)),
        make_record(tier=None, audit=Audit(missed="unanswered")),
    )
    found = quality((STUDENT, True, 0.02, 5), every=others)
    assert (found.answered.total(), found.parity().audits) == (5, 5)


@pytest.mark.parametrize(("good", "bad", "verdict"), [(400, 4, "kept"), (300, 60, "broken"), (30, 1, "unknown")])
def test_a_floor_is_kept_broken_or_not_known_yet(
    quality: Callable[..., Quality], good: int, bad: int, verdict: str
) -> None:
    found = quality((STUDENT, True, 0.02, good), (STUDENT, False, 0.02, bad)).beside(Parity(at_least=0.95))
    assert found.verdict == verdict


@pytest.mark.parametrize(("good", "bad", "then"), [(95, 2, "kept"), (88, 8, "broken"), (10, 0, "kept")])
def test_so_many_audits_more_do_tell(quality: Callable[..., Quality], good: int, bad: int, then: str) -> None:
    floor = Parity(at_least=0.95)
    before = quality((STUDENT, True, 0.5, good), (STUDENT, False, 0.5, bad)).beside(floor)
    assert before.verdict == "unknown" and before.more
    times = 1 + -(-before.more // (good + bad))  # at the rate seen, whole
    after = quality((STUDENT, True, 0.5, times * good), (STUDENT, False, 0.5, times * bad)).beside(floor)
    assert after.verdict == then


def test_where_the_student_answers_little_any_quality_keeps_the_floor(quality: Callable[..., Quality]) -> None:
    found = quality((STUDENT, False, 1.0, 4), (TEACHER, None, 1.0, 996)).beside(Parity(at_least=0.95))
    assert found.verdict == "kept"
