"""The benchmark of the running promise: what it counts, and that its rules are what their names say."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

from tests.benchmarks.conftest import Script


@pytest.fixture
def continuous(script: Script, monkeypatch: pytest.MonkeyPatch) -> Any:
    found = script("continuous")
    monkeypatch.setattr(found, "BEFORE", 6000)
    monkeypatch.setattr(found, "AFTER", 6000)
    return found


def rows_of(continuous: Any, change: str, streams: int = 3) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    scores = np.sort(rng.beta(4, 1.2, 3000))[::-1]
    part = continuous.Certified(scores, rng.random(3000) < scores)
    rows = continuous.cell_rows("made up", [part], continuous.Promise(0.9, 0.9), change, streams)
    return {row["name"]: row for row in rows}


def test_what_stays_as_it_is_keeps_the_floor_and_the_share(continuous: Any) -> None:
    found = rows_of(continuous, "none")
    assert set(found) == {*continuous.NAMES, "oracle"}
    for name in ("locum", "one shot", "e-process, not latched"):
        row = found[name]
        assert row["worst_median"] < 0.1
        assert abs(row["share_before"] - row["share_after"]) < 0.05
        assert 0.1 < row["share_after"] < found["oracle"]["share_after"]


def test_a_change_breaks_what_does_not_follow_it(continuous: Any) -> None:
    found = rows_of(continuous, "blind")
    assert found["one shot"]["broke"] == found["latched"]["broke"] == 1
    assert found["locum"]["lost_after"] < found["locum, proof alone"]["lost_after"] < found["one shot"]["lost_after"]
    assert found["locum"]["share_after"] < 0.5 * found["locum"]["share_before"]
    assert found["locum"]["audits"] > found["one shot"]["audits"]


def test_the_exact_test_taken_again_is_the_products_in_the_long_run(continuous: Any) -> None:
    """Clopper and Pearson's count, as ``most_failures`` has it without a horizon."""
    risk = importlib.import_module("router.scoring.statistics.risk")
    scores = np.linspace(1, 0, 500)
    sample = continuous.Certified(scores, np.arange(500) % 9 != 0)
    rule = continuous.TakenAgain(sample, continuous.Promise(0.9, 0.9))
    assert rule._most[:4].astype(int).tolist() == [risk.most_failures(n, 0.1, 0.9) for n in range(500, 504)]
    before = rule.thresholds[0]
    for _ in range(30):
        rule.observe(1.0, False)
    assert rule.thresholds[0] > before
