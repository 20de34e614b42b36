"""The second look knows more than the score alone, of whole answers and of their beginnings."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from router.contracts.records import Signals
from router.scoring import answer_head
from router.scoring.agreement import Agreement
from router.scoring.answer_head import AnswerHead, inputs
from router.scoring.linear import Bools, Floats
from router.scoring.signals import of_answer, summarise

HOLD = 6


def answers(n: int, seed: int, length: int = 5, words: int = 1) -> tuple[list[float], list[Signals], Bools]:
    """The score knows a little, the tokens more; ``words`` different answers, the later ones the more often right."""
    rng = np.random.default_rng(seed)
    scores, signals, labels = [], [], []
    for _ in range(n):
        easy, word = rng.uniform(), int(rng.integers(words))
        right = bool(rng.uniform() < 0.3 + 0.4 * easy + 0.3 * (word / max(1, words - 1) - 0.5) * (words > 1))
        doubts = 10 ** -rng.normal(2.5 if right else 2.0, 1.0, length).clip(0.1, 6)
        said = f"answer {word}" if words > 1 else None
        found = of_answer(np.log1p(-doubts).tolist(), said, ["x"] * HOLD, HOLD)
        assert found is not None
        scores.append(0.3 + 0.4 * easy)
        signals.append(found)
        labels.append(right)
    return scores, signals, np.array(labels)


def log_loss(p: Floats | list[float], labels: Bools) -> float:
    q = np.clip(p, 1e-6, 1 - 1e-6)
    return float(-np.mean(np.where(labels, np.log(q), np.log(1 - q))))


def fitted(scores: list[float], signals: list[Signals], labels: Bools) -> tuple[AnswerHead, Floats]:
    found = answer_head.fit(scores, signals, labels, np.ones(len(labels)), 0)
    assert found is not None
    return found


def test_an_answers_own_certainty_lowers_the_held_out_loss() -> None:
    head, held_out = fitted(*answers(600, 0))
    scores, signals, labels = answers(600, 1)
    fresh = [head(p, s) for p, s in zip(scores, signals, strict=True)]
    assert log_loss(fresh, labels) < log_loss(scores, labels) - 0.08
    assert log_loss(held_out, answers(600, 0)[2]) == pytest.approx(log_loss(fresh, labels), abs=0.08)
    assert np.mean(fresh) == pytest.approx(labels.mean(), abs=0.05)


def test_an_answer_that_was_often_wrong_is_trusted_less() -> None:
    scores, signals, labels = answers(1500, 2, words=8)
    head, _ = fitted(scores, signals, labels)
    fresh, told, truth = answers(800, 3, words=8)
    knows = [head(p, s) for p, s in zip(fresh, told, strict=True)]
    blind = [head(p, replace(s, answer=None)) for p, s in zip(fresh, told, strict=True)]
    assert log_loss(knows, truth) < log_loss(blind, truth) - 0.004
    best, worst = (summarise([-0.01] * 5, True, f"answer {word}") for word in (7, 0))
    assert head(0.5, best) > head(0.5, worst)


def test_a_beginning_is_judged_by_beginnings() -> None:
    """Where the first tokens say little of the whole, the head knows it: it is calibrated on them too."""
    scores, signals, labels = answers(800, 4, length=20)
    head, _ = fitted(scores, signals, labels)
    fresh, told, truth = answers(800, 5, length=20)
    begun = [head(p, s.held) for p, s in zip(fresh, told, strict=True) if s.held is not None]
    whole = [head(p, s) for p, s in zip(fresh, told, strict=True)]
    assert log_loss(whole, truth) < log_loss(begun, truth) < log_loss(fresh, truth) - 0.05
    assert np.mean(begun) == pytest.approx(truth.mean(), abs=0.05)


def test_a_beginning_never_raises_the_score_of_a_head_that_saw_none() -> None:
    head, _ = fitted(*answers(200, 6))
    assert head.held is None
    assert head(0.5, summarise([-1e-5] * 6, False)) == 0.5
    assert head(0.5, summarise([-3.0] * 6, False)) < 0.5


def test_samples_that_agree_lift_an_answer_and_samples_that_differ_do_not() -> None:
    scores, signals, labels = answers(600, 7)
    rng = np.random.default_rng(7)
    for s, right in zip(signals, labels.tolist(), strict=True):
        s.samples, s.agreement = 4, float(rng.binomial(4, 0.9 if right else 0.4)) / 4
    head, _ = fitted(scores, signals, labels)
    seen = summarise([-0.1] * 5, True)
    alone = head(0.5, seen)
    assert head(0.5, replace(seen, samples=4, agreement=1.0)) > alone + 0.05
    assert head(0.5, replace(seen, samples=4, agreement=0.0)) == alone
    assert head.agreement is not None
    assert head.agreement.chance(0.5, 0.0) == pytest.approx(1)
    assert 0 < head.agreement.chance(0.5, 0.6) < 1
    assert head.agreement.chance(0.5, 1.0) == 0


def test_few_samples_teach_nothing() -> None:
    scores, signals, labels = answers(200, 8)
    for s in signals[:30]:
        s.samples, s.agreement = 4, 0.5
    assert fitted(scores, signals, labels)[0].agreement is None
    assert Agreement.fit(np.zeros(0), [], np.zeros(0, np.bool_), np.zeros(0), 0) is None


def test_a_head_comes_back_from_json_as_it_was() -> None:
    scores, signals, labels = answers(300, 9, length=20)
    for s in signals:
        s.samples, s.agreement, s.answer = 2, 0.5, 7
    head, _ = fitted(scores, signals, labels)
    back = AnswerHead.of(json.loads(json.dumps(head.plain())))
    assert back == head
    assert [back(0.4, s) for s in signals] == [head(0.4, s) for s in signals]


def test_an_older_heads_weights_are_refused() -> None:
    old = {"weights": [0.1] * 17, "bias": 0.0, "knows_partial": False}
    with pytest.raises(ValueError, match="an older version's, and a new bundle is needed"):
        AnswerHead.of(old)
    with pytest.raises(ValueError, match="an answer head has 16 weights, not 17"):
        AnswerHead.of({"whole": old, "held": None, "records": {}, "agreement": None})


def test_signals_of_old_records_say_nothing_unusual() -> None:
    """What an older version did not look at stands where an answer without anything to tell stands."""
    old = inputs(0.5, Signals(
        tokens=2, sum_logprob=-0.2, mean_logprob=-0.1, min_logprob=-0.1, first_logprob=-0.1, q10_logprob=-0.1,
        q25_logprob=-0.1, q50_logprob=-0.1,
    ))  # fmt: skip
    assert old == inputs(0.5, summarise([-0.1, -0.1], True, "yes"))
