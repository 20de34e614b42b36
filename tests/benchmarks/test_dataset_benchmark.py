"""The benchmark of datasets: it makes the log that it says, and measures the command itself."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from tests.benchmarks.conftest import Script


@pytest.fixture
def dataset(script: Script) -> ModuleType:
    found: ModuleType = script("dataset")
    return found


def test_the_log_holds_copies_near_copies_and_audits_and_is_the_same_each_time(dataset: ModuleType) -> None:
    records = list(dataset.synthetic(3000, seed=1))
    assert records == list(dataset.synthetic(3000, seed=1))
    prompts = [str(r.request["messages"]) for r in records]
    assert 0.05 < 1 - len(set(prompts)) / len(prompts) < 0.15
    assert 0.01 < sum(r.decision.audited for r in records) / len(records) < 0.03


def test_each_row_tells_rate_peak_and_what_became_of_the_records(dataset: ModuleType, tmp_path: Path) -> None:
    rows = dataset.run(tmp_path, 400, seed=0)
    assert [row["name"] for row in rows] == ["locum", "locum, every row"]
    for row in rows:
        assert sum(row["counts"].values()) + sum(row["skipped"].values()) == 400
        assert row["records_per_second"] > 0 and row["peak_mb"] > 10
