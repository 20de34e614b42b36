"""Bootstrap intervals: hand-checked where they have a closed form, and covering as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from distiller.evaluation.calibration import auroc, brier, calibration_error, reliability
from distiller.evaluation.intervals import Resamples


def test_the_same_seed_gives_the_same_limits_and_another_seed_others() -> None:
    hits = [i % 3 > 0 for i in range(90)]
    assert Resamples(90).rate(hits) == Resamples(90).rate(hits)
    assert Resamples(90).rate(hits) != Resamples(90, seed=1).rate(hits)


def test_a_rate_without_a_failure_has_exact_limits_not_none() -> None:
    """Without a failure in 50, the lower limit at 95% is 0.025 to the power of 1/50."""
    found = Resamples(50).rate([True] * 50)
    assert (found.estimate, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.025 ** (1 / 50))


def test_two_that_never_differ_have_limits_around_no_difference() -> None:
    found = Resamples(50).difference([True] * 50, [True] * 50)
    assert found.estimate == 0.0
    assert (found.low, found.high) == (pytest.approx(-(1 - 0.025 ** (1 / 50))), pytest.approx(1 - 0.025 ** (1 / 50)))


def test_pairing_makes_a_difference_tighter_than_its_parts() -> None:
    first, second = [i % 2 == 0 for i in range(200)], [i % 2 == 0 and i % 40 > 0 for i in range(200)]
    draws = Resamples(200)
    paired, alone = draws.difference(first, second), draws.rate(first)
    assert paired.estimate == pytest.approx(0.025)
    assert paired.high - paired.low < (alone.high - alone.low) / 2


def test_limits_near_one_are_lopsided() -> None:
    found = Resamples(100).rate([i >= 3 for i in range(100)])
    assert found.estimate == pytest.approx(0.97)
    assert 0.97 - found.low > found.high - 0.97 > 0


@pytest.mark.parametrize("rate", [0.5, 0.9])
def test_a_rates_limits_hold_it_about_as_often_as_they_say(rate: float) -> None:
    rng = np.random.default_rng(3)
    held = sum(
        found.low <= rate <= found.high
        for found in (Resamples(80, draws=400).rate((rng.random(80) < rate).tolist()) for _ in range(300))
    )
    assert 0.91 <= held / 300 <= 0.985


def test_a_ratio_is_of_sums_and_unknown_over_nothing() -> None:
    found = Resamples(4).ratio([True, True, False, False], [True, True, True, True])
    assert found.estimate == 0.5 and found.low <= 0.5 <= found.high
    assert Resamples(2).ratio([True, True], [False, False]).estimate is None


def test_a_ranking_counts_ties_half() -> None:
    """Of the four pairs the hit is above in two, equal in one, below in one: 2.5 of 4."""
    found = Resamples(4).auroc([0.9, 0.5, 0.5, 0.7], [True, True, False, False])
    assert found.estimate == pytest.approx(2.5 / 4)
    assert auroc(np.array([0.9, 0.5, 0.5, 0.7]), np.array([True, True, False, False])) == pytest.approx(2.5 / 4)
    assert Resamples(2).auroc([0.1, 0.2], [True, True]).estimate is None


def test_a_rankings_limits_hold_its_estimate_and_no_knowledge_holds_a_half() -> None:
    rng = np.random.default_rng(5)
    found = Resamples(300).auroc(rng.random(300).tolist(), (rng.random(300) < 0.4).tolist())
    assert found.estimate is not None and found.low < found.estimate < found.high
    assert found.low < 0.5 < found.high


def test_brier_and_calibration_error_by_hand() -> None:
    p, labels = np.array([0.1, 0.3, 0.7, 0.9]), np.array([False, True, True, True])
    assert brier(p, labels) == pytest.approx((0.01 + 0.49 + 0.09 + 0.01) / 4)
    assert calibration_error(p, labels, bins=2) == pytest.approx((2 * 0.3 + 2 * 0.2) / 4)
    low, high = reliability(p, labels, bins=2)
    assert (low.probability, low.rate, low.n) == (pytest.approx(0.2), 0.5, 2)
    assert (high.probability, high.rate, high.high) == (pytest.approx(0.8), 1.0, 1.0)


def test_nothing_is_known_of_no_question() -> None:
    assert Resamples(0).rate([]).estimate is None
    assert Resamples(0).difference([], []).estimate is None
