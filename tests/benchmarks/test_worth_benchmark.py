"""The benchmark of what a teacher's dollar buys: its figures are what they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.benchmarks.conftest import Script


@pytest.fixture
def benchmark(script: Script) -> Any:
    return script("worth")


def test_cheap_gains_first_recover_more_for_the_same_money_and_as_much_for_all_of_it(benchmark: Any) -> None:
    student, teacher = np.array([0, 0, 0, 0, 1], np.bool_), np.array([1, 1, 1, 1, 1], np.bool_)
    o = benchmark.Outcomes(student, teacher, np.full(5, 1.0), np.array([2.0, 2.0, 5.0, 5.0, 3.0]))  # 12 more in all
    cheap = benchmark.measured(np.array([5.0, 4.0, 3.0, 2.0, 1.0]), o)
    dear = benchmark.measured(np.array([2.0, 1.0, 5.0, 4.0, 3.0]), o)
    assert cheap["cost_for_pgr_50%"] == pytest.approx(2 / 12) and dear["cost_for_pgr_50%"] == pytest.approx(8 / 12)
    assert cheap["pgr_of_40%_escalated"] == dear["pgr_of_40%_escalated"] == 0.5
    assert cheap["cost_of_40%_escalated"] == pytest.approx(2 / 12)
    assert cheap["usd_per_1000_resolved_10%"] < dear["usd_per_1000_resolved_10%"]
