"""The table of faults: what it plays reaches the proxy as scripted, and what is not right is told."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import faults
from benchmarks.fault_kinds import DOWN, KINDS, Fault
from benchmarks.faults import Got, Kept, cells, measure, wrong

SOME = (
    DOWN,
    "status 500",
    "429 with Retry-After",
    "400 of the request",
    "error in a 200",
    "JSON cut short",
    "no usage",
)


def test_there_are_more_kinds_than_two_dozen_and_each_has_its_own_name() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS) >= 24
    assert len({cell.name for cell in cells(KINDS)}) == 6 * len(KINDS)


def test_backends_that_fail_are_stood_in_for_and_what_broke_off_is_told(tmp_path: Path) -> None:
    rows = measure(cells(kind for kind in KINDS if kind.name in SOME), tmp_path)
    assert len(rows) == 6 * len(SOME)
    assert [(r["kind"], r["asked"], r["broken"], r["wrong"]) for r in rows if not r["right"]] == []


@pytest.mark.parametrize("who", faults.WHO)
@pytest.mark.parametrize("fault", Fault)
def test_a_cell_is_wrong_where_the_answer_never_ended_or_left_no_record(fault: Fault, who: str) -> None:
    cell = next(c for c in cells(KINDS) if c.fault is fault and c.who == who)
    assert wrong(cell, Got(cut=True), Kept(200, who, None))
    assert wrong(cell, Got(status=200), None)
    assert wrong(cell, Got(status=500, code="None"), Kept(500, None, None))


def test_a_failure_that_is_recorded_as_an_answer_to_learn_from_is_wrong() -> None:
    cell = next(c for c in cells(KINDS) if c.fault is Fault.MIDWAY and c.who == faults.TEACHER)
    got = Got(status=200, tier="teacher", code="upstream_error", text="The quick brown")
    failed = Kept(502, "teacher", None, ["teacher served"])
    assert wrong(cell, got, failed) == []
    assert wrong(cell, got, replace(failed, trainable=True)) == ["nothing to train on"]
    assert wrong(cell, got, replace(failed, status=200)) == ["recorded as a failure"]
    assert wrong(cell, replace(got, code=None), failed) == ["an error event"]


def test_the_exit_status_says_whether_all_is_right_and_the_file_has_a_row_a_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "faults.json"
    monkeypatch.setattr(sys, "argv", ["faults", "--only", "no usage", "--out", str(out)])
    assert faults.main() == 0
    told = json.loads(out.read_text())
    assert (told["benchmark"], len(told["rows"]), {r["name"] for r in told["rows"]}) == ("faults", 6, {"locum"})
