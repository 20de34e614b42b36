"""Samples in a replay: paid for, and lifting answers as often as the bundle learned, or as the log knows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from distiller.replay.plans import Plan, sample_of
from distiller.replay.third_look import ThirdLook
from distiller.replay.traffic import Traffic
from router.contracts.records import Record
from router.scoring.agreement import Agreement
from router.scoring.answer_head import AnswerHead, AnswerWeights
from router.scoring.model import Example
from router.scoring.scorer import Scorer
from router.scoring.statistics.estimates import figures
from router.scoring.text.features import extract
from tests.distiller.replay.known_log import Recorded, policy, read, signals

AGREEMENT = Agreement(on_logit=1.0, on_share=4.0, bias=-2.0, samples=2, edges=(), shares=((0.25, 0.25, 0.5),))
UNDECIDED = AnswerHead(AnswerWeights((0.0,) * 16, 0.0), None, {}, AGREEMENT)
"""Its second look says 0.5 of every answer; agreement of none, one and both samples makes it .1192, .5 and .8808."""
IF_GOOD, IF_BAD = 0.4404 / 0.5952, 0.0596 / 0.4048
"""P(both agree | acceptable) and P(both agree | not), by Bayes' rule."""
QUIET = policy().audit.model_copy(update={"rate": 0.0, "explore": 0.0})
SAMPLED = {"samples": 2}


def look(costs: tuple[float, float] = (0.001, 0.01), **more: Any) -> ThirdLook:
    return ThirdLook.of(UNDECIDED, AGREEMENT, [(0.9, replace(signals(-0.1), **more), costs)])


def test_what_samples_lift_is_what_the_bundle_learned_and_by_bayes_rule_where_the_verdict_is_known() -> None:
    third = look()
    assert third.alone.tolist() == [0.5] and third.right[0] == pytest.approx([0.1192, 0.5, 0.8808], abs=1e-4)
    assert third.lifted(0.8).tolist() == [0.5]
    assert third.lifted(0.8, np.array([True])) == pytest.approx(IF_GOOD, abs=1e-3)
    assert third.lifted(0.8, np.array([False])) == pytest.approx(IF_BAD, abs=1e-3)
    assert third.lifted(0.5).tolist() == [0.75] and third.lifted(0.9).tolist() == [0.0]


def test_samples_are_drawn_where_an_answer_falls_short_and_they_pay() -> None:
    assert look().drawn(0.8).tolist() == [True], "half a teacher's answer for two of the student's"
    assert look((0.003, 0.01)).drawn(0.8).tolist() == [False]
    assert look().drawn(0.5).tolist() == [False], "it does not fall short"
    assert look(complete=False).drawn(0.8).tolist() == [False], "the first tokens of a stream are no whole answer"


def test_where_the_log_has_samples_it_is_known_whether_they_agreed() -> None:
    for share, lifted in ((1.0, 1.0), (0.5, 0.0)):
        assert look(samples=2, agreement=share).lifted(0.8, np.array([False])).tolist() == [lifted]


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    texts = [extract({"messages": [{"role": "user", "content": f"question {i}"}]}) for i in range(4)]
    fitted = Scorer.fit([Example(text, None, n % 2 == 0) for n, text in enumerate(texts)], None)
    return Scorer(None, replace(fitted.learned, head=UNDECIDED))


def traffics(scorer: Scorer, records: list[Record]) -> tuple[Traffic, Traffic]:
    """For a policy that draws samples, and for one that does not."""
    by, without = read(records, policy(accept=SAMPLED), scorer), read(records, policy(), scorer)
    assert by.third is not None and without.third is None
    return by, without


def test_a_replay_pays_for_samples_and_serves_what_they_lift(scorer: Scorer) -> None:
    recorded = Recorded(2000, threshold=0.0)
    by, without = traffics(scorer, recorded.records())
    found, plain = (figures(sample_of(t, Plan(0.0, 0.8), QUIET)) for t in (by, without))
    good = by.acceptable[by.audited].mean()
    share, lost = good * IF_GOOD + (1 - good) * IF_BAD, (1 - good) * IF_BAD
    assert plain["share"].estimate == 0
    assert found["share"].estimate == pytest.approx(share, abs=0.001)
    assert found["parity"].estimate == pytest.approx(1 - lost, abs=0.02)
    more = 2 * by.student.mean() - share * by.teacher.mean()
    assert found["cost"].estimate - plain["cost"].estimate == pytest.approx(more, rel=0.05)  # type: ignore[operator]


def test_a_policy_that_draws_none_is_replayed_as_if_the_log_had_none(scorer: Scorer) -> None:
    said = Recorded(400, threshold=0.0).records()
    for record in said:
        signal = record.answers[0].signals
        assert signal is not None
        signal.samples, signal.agreement = 2, 1.0
    by, without = traffics(scorer, said)
    found, plain = (figures(sample_of(t, Plan(0.0, 0.8), QUIET)) for t in (by, without))
    assert (found["share"].estimate, plain["share"].estimate) == (pytest.approx(1.0), 0.0)
