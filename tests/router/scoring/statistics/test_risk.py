import numpy as np
import pytest
from scipy import stats

from router.scoring.statistics.risk import (
    betting_gains,
    betting_upper,
    break_probability,
    clopper_pearson_upper,
    most_failures,
    prediction_level,
    running_break_probability,
    wilson_interval,
)


@pytest.mark.parametrize(("failures", "n"), [(0, 59), (3, 100), (17, 40), (99, 100)])
def test_the_upper_bound_is_where_so_few_failures_become_implausible(failures: int, n: int) -> None:
    bound = clopper_pearson_upper(failures, n, 0.95)
    assert stats.binom.cdf(failures, n, bound) == pytest.approx(0.05)


def test_bounds_without_evidence_claim_nothing() -> None:
    assert clopper_pearson_upper(0, 0, 0.95) == 1 and clopper_pearson_upper(5, 5, 0.95) == 1
    assert most_failures(0, 0.05, 0.95) == most_failures(0, 0.05, 0.95, 1000) == -1
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_fifty_nine_clean_examples_are_the_least_that_show_95_at_95() -> None:
    assert clopper_pearson_upper(0, 58, 0.95) > 0.05 > clopper_pearson_upper(0, 59, 0.95)
    assert most_failures(58, 0.05, 0.95) == -1 and most_failures(59, 0.05, 0.95) == 0


def test_wilson_agrees_with_scipy() -> None:
    expected = stats.binomtest(7, 50).proportion_ci(0.9, method="wilson")
    assert wilson_interval(7, 50, 0.9) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("n", [100, 500, 3000])
@pytest.mark.parametrize("level", [0.02, 0.05, 0.1])
def test_without_a_horizon_as_many_may_fail_as_clopper_and_pearson_let(n: int, level: float) -> None:
    most = most_failures(n, level, 0.9)
    assert most < 0 or clopper_pearson_upper(most, n, 0.9) <= level
    assert clopper_pearson_upper(most + 1, n, 0.9) > level


@pytest.mark.parametrize(("failures", "n", "horizon"), [(0, 80, 40), (7, 300, 300), (150, 3000, 1000)])
def test_over_a_horizon_the_chance_is_a_beta_binomial_tail(failures: int, n: int, horizon: int) -> None:
    tail = stats.betabinom.sf(int(0.05 * horizon), horizon, failures + 1, n - failures)
    assert break_probability(failures, n, 0.05, horizon) == pytest.approx(tail)


def test_a_long_horizon_is_the_long_run_and_a_short_one_costs_more() -> None:
    assert break_probability(16, 500, 0.05, 10**6) == pytest.approx(break_probability(16, 500, 0.05), abs=1e-3)
    most = [most_failures(2000, 0.05, 0.95, horizon) for horizon in (500, 2000, 8000, None)]
    assert most == sorted(most) and most[0] < most[1] < most[3]


def test_a_horizon_of_which_all_may_fail_is_never_broken() -> None:
    assert break_probability(0, 10, 1.0, 5) == running_break_probability(0, 10, 1.0, 5) == 0


@pytest.mark.parametrize(("failures", "n", "horizon"), [(3, 200, 1000), (22, 1000, 200), (69, 2000, 1000)])
def test_whoever_counts_on_finds_the_floor_broken_as_often_as_said(failures: int, n: int, horizon: int) -> None:
    """Exact by the next requests' law (Polya's urn), step by step; what is said is half as much again at most."""
    allowed = int(0.05 * horizon + 1e-9)
    chances = stats.betabinom.pmf(np.arange(allowed + 1), horizon, failures + 1, n - failures)
    for at in range(horizon, 20 * horizon):
        fails = (failures + 1 + np.arange(len(chances))) / (n + 1 + at)
        chances = np.append(chances * (1 - fails), 0.0) + np.append(0.0, chances * fails)
        chances = chances[: int(0.05 * (at + 1) + 1e-9) + 1]
    rest = stats.beta.cdf(0.05, failures + 1 + np.arange(len(chances)), n - failures + 20 * horizon)
    broken = 1 - float((chances * rest).sum())
    said = running_break_probability(failures, n, 0.05, horizon)
    assert broken - 0.001 < said < 1.5 * broken
    assert said > break_probability(failures, n, 0.05, horizon)


def test_more_may_fail_where_nobody_counts_on() -> None:
    assert most_failures(1000, 0.05, 0.95, 1000) < most_failures(1000, 0.05, 0.95)


@pytest.mark.parametrize(("level", "horizon"), [(0.05, 300), (0.02, 1000), (0.1, 50)])
def test_a_rate_is_found_that_a_horizon_exceeds_as_seldom_as_asked(level: float, horizon: int) -> None:
    rate, allowed = prediction_level(level, horizon, 0.95), int(level * horizon + 1e-9)
    rng = np.random.default_rng(0)
    failed = rng.random((2000, 20 * horizon), np.float32) < rate
    counts = np.cumsum(failed, axis=1, dtype=np.int32)[:, horizon - 1 :]
    over = counts > level * np.arange(horizon, 20 * horizon + 1) + 1e-9
    assert stats.binom.sf(allowed, horizon, rate) < 0.05
    assert 0.02 < over.any(axis=1).mean() < 0.05 + 0.01


def test_betting_refutes_a_true_rate_no_more_often_than_it_may() -> None:
    """The rate is that of the traffic, of which the sample takes heavy requests too seldom."""
    rng, refuted = np.random.default_rng(0), 0
    weights = rng.choice([1.0, 10.0], (400, 500), p=[0.9, 0.1])
    failed = rng.uniform(size=weights.shape) < np.where(weights > 1, 0.15, 0.05)
    rate = (0.9 * 0.05 + 0.1 * 10 * 0.15) / (0.9 + 0.1 * 10)
    for w, f in zip(weights, failed, strict=True):
        kept, lost = betting_gains(w, rate, 0.95)
        refuted += np.where(f, lost, kept).sum() >= np.log(20)
    assert refuted / 400 <= 0.05 + 0.022


def test_the_betting_bound_comes_close_to_the_exact_one_and_stays_above() -> None:
    failed = np.arange(2000) < 60
    bound = betting_upper(failed, np.ones(2000), 0.95)
    assert clopper_pearson_upper(60, 2000, 0.95) < bound < 0.045
    assert betting_upper(failed, np.full(2000, 3.0), 0.95) == pytest.approx(bound)
    assert betting_upper(failed[:0], np.ones(0), 0.95) == 1.0
