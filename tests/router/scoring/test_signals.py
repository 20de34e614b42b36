import math

import numpy as np
import pytest

from router.scoring.signals import FLOOR, summarise


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
