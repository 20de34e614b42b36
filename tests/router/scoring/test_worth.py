"""What escalating gains for its cost: how long answers will be, what they cost, and what ranks first."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from router.contracts.prices import Price
from router.pricing import Prices
from router.scoring.lengths import LEAST, Lengths
from router.scoring.model import Example
from router.scoring.scorer import Scorer
from router.scoring.text.features import STRUCTURE, extract
from router.scoring.worth import Extra, worth


def prices(student: str, teacher: tuple[str, str]) -> Prices:
    dear = Price(input=Decimal(teacher[0]), output=Decimal(teacher[1]))
    return Prices(Price(input=Decimal(student), output=Decimal(student)), {"t": dear}, "t")


def asks(n: int, seed: int) -> tuple[list[str], list[int]]:
    """Requests with much code get answers that are ten times as long, give or take half."""
    rng = np.random.default_rng(seed)
    texts, tokens = [], []
    for code in (rng.random(n) < 0.5).tolist():
        words = " ".join(rng.choice(["alpha", "beta", "gamma", "delta"], 12).tolist())
        texts.append(f"fix this\n```python\nx = {{1: [2]}}\n{words}\n```" if code else f"what is {words}?")
        tokens.append(int((400 if code else 40) * rng.uniform(0.5, 1.5)))
    return texts, tokens


def test_the_length_of_an_answer_is_expected_from_what_is_asked() -> None:
    def structures(texts: list[str]) -> list[np.ndarray]:
        return [extract({"messages": [{"role": "user", "content": text}]}).structure for text in texts]

    texts, tokens = asks(400, 0)
    found = Lengths.fit(structures(texts), [30] * 400, tokens)
    assert found is not None and found.usual == (30, pytest.approx(np.mean(tokens)))
    fresh, true = asks(200, 1)
    told = np.array([found.tokens(s) for s in structures(fresh)])
    short, long = told[np.array(true) < 150], told[np.array(true) > 150]
    assert short.mean() == pytest.approx(40, rel=0.15) and long.mean() == pytest.approx(400, rel=0.15)
    assert found.tokens(np.full(len(STRUCTURE), 1e6, np.float32)) < 5 * max(tokens), "never beyond what was seen"


def test_a_few_answers_teach_nothing_of_their_length() -> None:
    few = [np.zeros(len(STRUCTURE), np.float32)] * (LEAST - 1)
    assert Lengths.fit(few, [1] * len(few), [1] * len(few)) is None


def test_the_worth_for_the_student_falls_with_the_gain_per_dollar() -> None:
    ranked = [(-0.4, 1.0), (0.0, 1.0), (0.1, 4.0), (0.1, 1.0), (0.3, 1.0), (0.3, 0.5), (1.0, 0.05)]
    found = [worth(*pair) for pair in ranked]
    assert found == sorted(found, reverse=True) and len(set(found)) == len(found)
    assert found[1] == 0.5 and all(0 <= w <= 1 for w in found)
    assert worth(0.2, 2.0) == pytest.approx(worth(0.1, 1.0))


def test_a_request_is_as_dear_as_its_tokens_at_what_the_teacher_costs_more() -> None:
    extra = Extra.of(prices("1", ("2", "5")))  # 1 and 4 USD a million more
    assert extra.dearness((100, 100), 100, 100) == 1
    assert extra.dearness((100, 100), 100, 225) == pytest.approx(2)
    assert extra.dearness((100, 100), 1, 0) == pytest.approx(0.05), "no expectation makes a request free"
    assert Extra.of(prices("9", ("1", "1"))).dearness((100, 100), 100, 225) == 1


def test_a_kept_scorer_expects_the_same_lengths_and_knows_what_it_was_refreshed_with(tmp_path: Path) -> None:
    texts, tokens = asks(200, 0)
    bodies = [{"messages": [{"role": "user", "content": text}]} for text in texts]
    made = [
        Example(extract(body), None, i % 3 > 0, teacher_tokens=n)
        for i, (body, n) in enumerate(zip(bodies, tokens, strict=True))
    ]
    new = extract({"messages": [{"role": "user", "content": "explain quantum chromodynamics"}]})
    live = Scorer.fit(made, None)
    assert live.look(new).novelty > 0.5
    live.refreshed([Example(new, None, True)]).save(tmp_path)
    kept = Scorer.load(tmp_path, None)
    assert kept.look(new).novelty == 0
    assert kept.look(made[0].features).tokens == live.look(made[0].features).tokens is not None
    assert Scorer.fit([replace(e, teacher_tokens=0) for e in made], None).look(new).tokens is None
