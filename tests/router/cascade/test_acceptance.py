"""Which student answers may leave, and which go to the teacher instead."""

from __future__ import annotations

from typing import Any

import pytest

from router.cascade.acceptance import judge_answer
from router.contracts.bundles import Thresholds
from router.contracts.decision import Decision, Deferral, Reason, Tier
from router.contracts.records import Signals
from router.judges.soundness import AnswerSoFar
from router.policy.policy import Policy
from router.scoring.model import Example
from router.scoring.scorer import Scorer
from router.scoring.signals import summarise
from router.scoring.text.features import extract
from tests.router.answers import FREE


def policy(objective: dict[str, Any], cascade: bool = True) -> Policy:
    return Policy.model_validate(
        {
            "name": "p",
            "student": {"model": "s", "engine": "embedded", "usd_per_million": {"input": 0, "output": 0}},
            "teacher": {"model": "t"},
            "objective": objective,
            "accept": {"cascade": cascade},
        }
    )


PARITY, SHARE, FIXED = {"parity": {"at_least": 0.95}}, {"student_share": 0.8}, {"threshold": 0.6}
SURE, UNSURE = summarise([-0.01] * 6, complete=True), summarise([-2.5] * 6, complete=True)
STRICT = Thresholds(route=0.1, accept=0.7)


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    """A real scorer that has seen: sure answers are acceptable, unsure ones are not."""
    examples = []
    for i in range(80):
        features = extract({"messages": [{"role": "user", "content": f"request number {i * 37 % 80}"}]})
        right = i % 2 == 0
        signals = summarise([(-0.02 if right else -2.0) - 0.01 * (i % 7)] * 6, complete=True)
        examples.append(Example(features, signals, right))
    return Scorer.fit(examples, None)


def verdict(
    scorer: Scorer | None, signals: Signals | None, goal: dict[str, Any], reason: Reason = Reason.SCORE, **more: Any
) -> tuple[Deferral | None, float | None]:
    answer = AnswerSoFar({"content": more.pop("text", "card_arrival")}, "stop", signals)
    decision = Decision(tier=Tier.STUDENT, reason=reason, score=0.6)
    live = None if scorer is None else STRICT
    return judge_answer(answer, FREE, policy=policy(goal, **more), decision=decision, scorer=scorer, thresholds=live)


def test_an_unsure_student_defers_and_a_sure_one_answers(scorer: Scorer) -> None:
    assert verdict(scorer, SURE, PARITY)[0] is None
    deferral, confidence = verdict(scorer, UNSURE, PARITY)
    assert deferral is Deferral.CONFIDENCE
    assert confidence is not None
    assert confidence < 0.5


def test_without_signals_the_score_stands_for_confidence(scorer: Scorer) -> None:
    assert verdict(scorer, None, PARITY) == (Deferral.CONFIDENCE, 0.6)
    assert verdict(scorer, None, FIXED) == (None, 0.6)


def test_confidence_is_told_but_not_tested_where_the_score_did_not_choose(scorer: Scorer) -> None:
    for reason in (Reason.RULE, Reason.BUDGET, Reason.OVERRIDE):
        deferral, confidence = verdict(scorer, UNSURE, PARITY, reason)
        assert deferral is None
        assert confidence is not None


def test_a_declared_share_is_not_undone_by_deferrals(scorer: Scorer) -> None:
    assert verdict(scorer, UNSURE, SHARE)[0] is None


def test_with_the_cascade_off_only_structure_is_tested(scorer: Scorer) -> None:
    assert verdict(scorer, UNSURE, PARITY, cascade=False)[0] is None
    assert verdict(scorer, UNSURE, PARITY, cascade=False, text=" ")[0] is Deferral.EMPTY


def test_before_any_scorer_structure_is_tested_and_no_confidence_is_told() -> None:
    assert verdict(None, UNSURE, SHARE) == (None, None)
    assert verdict(None, UNSURE, SHARE, text="") == (Deferral.EMPTY, None)


def test_a_client_that_asked_for_the_student_gets_it_whatever_it_says(scorer: Scorer) -> None:
    assert verdict(scorer, UNSURE, PARITY, Reason.OVERRIDE, text="")[0] is None
    assert verdict(scorer, UNSURE, PARITY, Reason.RULE, text="")[0] is Deferral.EMPTY
