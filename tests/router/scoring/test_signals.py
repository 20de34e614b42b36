import math
from dataclasses import asdict

import numpy as np
import pytest

from router.scoring.signals import FLOOR, of_answer, summarise


def test_quantiles_are_numpys() -> None:
    p = np.log(np.random.default_rng(0).uniform(0.01, 1, 37))
    s = summarise(p.tolist(), complete=True)
    for q, found in ((0.1, s.q10_logprob), (0.25, s.q25_logprob), (0.5, s.q50_logprob)):
        assert found == pytest.approx(np.quantile(p, q))
    assert s.tokens == 37 and s.sum_logprob == pytest.approx(p.sum()) and s.mean_logprob == pytest.approx(p.mean())
    assert s.min_logprob == p.min() and s.first_logprob == p[0] and s.complete


def test_no_token_is_no_evidence_of_confidence() -> None:
    s = summarise([], complete=False)
    assert s.tokens == 0 and s.sum_logprob == 0 and s.min_logprob == s.q50_logprob == FLOOR and not s.complete


def test_what_is_no_probability_counts_as_never() -> None:
    s = summarise([math.nan, -math.inf, -9999.0, 1e-9], complete=True)
    assert s.min_logprob == FLOOR and s.first_logprob == FLOOR and s.sum_logprob == 3 * FLOOR


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("card_arrival", {"hedges": 0, "sentences": 0, "distinct": None, "parses": None}),
        ('{"team": "billing"}', {"parses": True}),
        ('[1, 2', {"parses": False}),
        ("I am unsure. It might be Monday, perhaps?", {"hedges": 3, "sentences": 2}),
        ("so it is so it is so it is so it is", {"distinct": 3 / 9}),
        ("one two three four five six seven eight", {"distinct": 1.0}),
        ("是的。可能不行。", {"sentences": 2}),
        ("", {"hedges": None, "sentences": None, "answer": None}),
    ],
)  # fmt: skip
def test_the_words_tell_what_they_tell(text: str, told: dict[str, object]) -> None:
    found = asdict(summarise([-0.1, -0.2], True, text))
    assert {name: found[name] for name in told} == told


def test_a_short_answer_has_a_number_that_case_and_spaces_do_not_change_and_a_long_one_has_none() -> None:
    said = [summarise([-0.1], True, text).answer for text in ("Card arrival", " card  arrival.\n", "card_arrival")]
    assert said[0] == said[1] != said[2]
    assert summarise([-0.1], True, "word " * 40).answer is None
    assert summarise([-0.1], False, "Card arr").answer is None, "a beginning is no answer"


def test_a_longer_answer_keeps_what_its_beginning_would_have_shown() -> None:
    logprobs, tokens = [-0.1, -0.2, -3.0], ["not", " sure", " but"]
    whole = of_answer(logprobs, "not sure but", tokens, hold=2)
    assert whole is not None and whole.complete and whole.min_logprob == -3.0
    assert whole.held == summarise(logprobs[:2], False, "not sure")
    short = of_answer(logprobs, "not sure but", tokens, hold=3)
    assert short is not None and short.held is None, "a stream would have ended before its commit point"
    assert of_answer([], "x", [], hold=2) is None
