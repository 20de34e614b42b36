import pytest
from scipy import stats

from router.scoring.risk import clopper_pearson_lower, clopper_pearson_upper, wilson_interval


@pytest.mark.parametrize(("failures", "n"), [(0, 59), (3, 100), (17, 40), (99, 100)])
def test_the_upper_bound_is_where_so_few_failures_become_implausible(failures: int, n: int) -> None:
    bound = clopper_pearson_upper(failures, n, 0.95)
    assert stats.binom.cdf(failures, n, bound) == pytest.approx(0.05)
    assert clopper_pearson_lower(n - failures, n, 0.95) == pytest.approx(1 - bound)


def test_bounds_without_evidence_claim_nothing() -> None:
    assert clopper_pearson_upper(0, 0, 0.95) == 1 and clopper_pearson_upper(5, 5, 0.95) == 1
    assert clopper_pearson_lower(0, 0, 0.95) == 0 and wilson_interval(0, 0) == (0.0, 1.0)


def test_fifty_nine_clean_examples_are_the_least_that_show_95_at_95() -> None:
    assert clopper_pearson_upper(0, 58, 0.95) > 0.05 > clopper_pearson_upper(0, 59, 0.95)


def test_wilson_agrees_with_scipy() -> None:
    expected = stats.binomtest(7, 50).proportion_ci(0.9, method="wilson")
    assert wilson_interval(7, 50, 0.9) == pytest.approx((expected.low, expected.high))
