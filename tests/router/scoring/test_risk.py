import numpy as np
import pytest
from scipy import stats

from router.scoring.risk import EProcess, break_probability, clopper_pearson_upper, most_failures, wilson_interval


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
    assert break_probability(0, 10, 1.0, 5) == 0


def test_wealth_seldom_ever_reaches_twenty_while_the_null_holds() -> None:
    rng, reached = np.random.default_rng(0), 0
    for _ in range(400):
        process, most = EProcess(0.1, above=True, most_weight=5), 0.0
        for _ in range(300):
            weight = float(rng.choice([1, 5], p=[0.9, 0.1]))
            process.update(float(rng.uniform() < 0.1), weight)
            most = max(most, float(process.value))
        reached += most >= 20
    assert reached / 400 <= 0.05 + 0.022


@pytest.mark.parametrize(("above", "rate"), [(True, 0.2), (False, 0.04)])
def test_wealth_grows_where_the_bet_is_right(above: bool, rate: float) -> None:
    rng, process = np.random.default_rng(0), EProcess([0.1, 0.1], above=above)
    for loss in rng.uniform(size=600) < rate:
        process.update(float(loss))
    assert process.value.shape == (2,) and (process.value > 20).all()
    assert np.log(process.value) == pytest.approx(process.log_value)


def test_a_loss_or_a_weight_that_could_ruin_the_gambler_is_refused() -> None:
    process = EProcess(0.1, above=True, most_weight=2)
    for loss, weight in ((1.1, 1), (-0.1, 1), (1, 3), (float("nan"), 1)):
        with pytest.raises(ValueError, match="not in"):
            process.update(loss, weight)
