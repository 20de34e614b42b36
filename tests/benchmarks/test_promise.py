"""The benchmark of the promise: what it measures is what the product does, and what theory says of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.benchmarks.conftest import Script


@pytest.fixture
def promise(script: Script) -> Any:
    return script("promise")


def traffic(n: int, seed: int, digits: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores that are true probabilities, rounded, best first, and outcomes drawn by them."""
    rng = np.random.default_rng(seed)
    scores = np.sort(np.round(rng.beta(4, 1.2, n), digits))[::-1]
    return scores, rng.uniform(size=n) < scores


@pytest.mark.parametrize("digits", [9, 2])
def test_rules_break_the_floor_as_often_as_theory_says_and_the_products_keeps_it(promise: Any, digits: int) -> None:
    rows = promise.set_rows("made up", [traffic(1001, seed, digits) for seed in range(2)], 400)
    found = {(r["name"], r["target"], r["confidence"]): r for r in rows}
    assert len(found) == len(rows) == 9 * len(promise.CELLS)
    error = 2.5 * 0.5 / 800**0.5
    for cell in promise.CELLS:
        ours, *others = (found[n, cell.target, cell.confidence] for n in (promise.LOCUM, *promise.BASELINES))
        assert ours["chance"] <= ours["ever"] <= ours["promised"] + 1e-9
        for row in (ours, *others):
            assert row["broke"] <= row["chance"] + error
            assert digits < 9 or row["broke"] >= row["chance"] - error
        assert ours["share"] >= max((r["share"] for r in others if r["ever"] <= r["promised"]), default=0)
        assert found["point estimate", cell.target, cell.confidence]["share"] > ours["share"]


def test_a_rule_that_is_not_the_products_is_found_out(promise: Any) -> None:
    scores, good = traffic(600, 0, 9)
    most = np.array([promise.most_failures(300, c.level, c.confidence, 300) for c in promise.CELLS])
    for change in (0, 1):
        halves, lost, share = promise.measure(scores, good, most + change, 5, np.random.default_rng(0))
        if change:
            with pytest.raises(RuntimeError, match="not the rule"):
                promise.check_product(scores, good, halves, lost, share)
        else:
            promise.check_product(scores, good, halves, lost, share)


def test_the_oracle_serves_what_is_acceptable_and_spends_the_floor(promise: Any) -> None:
    scores, good = traffic(1000, 1, 9)
    rows = promise.set_rows("made up", [(scores, good)], 20)
    oracle = next(r for r in rows if r["name"] == "oracle" and r["target"] == 0.95)
    assert oracle["share"] == pytest.approx(good.mean() + 0.05, abs=1e-3)
    assert oracle["parity"] == pytest.approx(0.95)
