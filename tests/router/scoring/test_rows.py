import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from router.scoring import linear
from router.scoring.rows import Rows


def rows(n: int, seed: int = 0) -> Rows:
    """Six dense columns beside forty sparse ones; every tenth row is the one before it again."""
    rng = np.random.default_rng(seed)
    again = np.arange(n) - (np.arange(n) % 10 == 9)
    grams = sparse.random(n, 40, 0.2, "csr", np.float32, rng=rng)[again]
    return Rows(rng.normal(size=(n, 6)).astype(np.float32)[again], grams)


def whole(x: Rows) -> np.ndarray:
    return np.hstack([x.dense, x.sparse.toarray()]).astype(float)


def test_products_and_choices_are_those_of_one_matrix() -> None:
    x, rng = rows(50), np.random.default_rng(1)
    weights, factors, few = rng.normal(size=x.width), rng.normal(size=50), np.array([3, 9, 8])
    assert x.times(weights) == pytest.approx(whole(x) @ weights, abs=1e-5)
    assert x.summed(factors) == pytest.approx(factors @ whole(x), abs=1e-5)
    assert (whole(x[few]) == whole(x)[few]).all() and (len(x[few]), x[few].width) == (3, 46)


def test_turned_rows_keep_lengths_and_angles_and_weights_come_back() -> None:
    x = rows(30)
    turned = x.turned()
    assert turned.rows.width == 30
    assert turned.rows.dense @ turned.rows.dense.T == pytest.approx(whole(x) @ whole(x).T, abs=1e-4)
    weights = np.random.default_rng(2).normal(size=30) @ turned.rows.dense.astype(float)
    assert x.times(turned.back(weights)) == pytest.approx(turned.rows.times(weights), abs=1e-3)


@pytest.mark.parametrize("examples", [40, 3000])  # turned, and not
def test_a_regression_is_scikit_learns(examples: int) -> None:
    x, rng = rows(examples), np.random.default_rng(3)
    labels = rng.uniform(size=examples) < 1 / (1 + np.exp(-2 * x.dense[:, 0].astype(float)))
    weights = rng.uniform(0.5, 2, examples)
    fitted = linear.fit(x, labels, weights, (1.0,), 0)
    theirs = LogisticRegression(C=1.0, tol=1e-3).fit(whole(x), labels, sample_weight=weights)
    mine = x.times(fitted.linear.weights) + fitted.linear.bias
    assert mine == pytest.approx(theirs.decision_function(whole(x)), abs=0.05)


def test_strengths_are_chosen_on_both_classes_however_rare_one_is() -> None:
    n = 3000
    labels = np.zeros(n, np.bool_)
    labels[[5, 700, 2999]] = True
    fitted = linear.fit(rows(n), labels, np.ones(n), (0.1, 1.0), 0)
    assert np.isfinite(fitted.held_out).all() and fitted.held_out.max() < 0.5
