"""The benchmark of who is who: its truth is the truth, and Locum's figures are what its docs say of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.conftest import Script


@pytest.fixture
def identity(script: Script) -> Any:
    return script("identity")


def test_no_conversation_that_can_be_told_from_others_is_joined_or_split(identity: Any) -> None:
    rows = {row["name"]: row["shapes"] for row in identity.compared(12, 2)}
    for shape, found in rows["locum"].items():
        assert (found["joined"], found["split"]) == (0, 0), shape
    wrong = {name: sum(f["joined"] + f["split"] for f in shapes.values()) for name, shapes in rows.items()}
    assert min(n for name, n in wrong.items() if name != "locum") > 50, "the shapes are hard"


def test_whoever_knows_the_truth_makes_no_mistake_and_whoever_knows_nothing_all(identity: Any) -> None:
    class Same:
        def name(self, headers: Any, body: Any, request: str) -> str:
            return "same"

        def answered(self, answer: Any) -> None:
            pass

    kinds = identity.SHAPES["documents in the instructions"]
    found = identity.measured(Same(), kinds, 12, identity.Now(), 0)
    assert found == {"joined": 12, "split": 0, "swapped": 0}
    found = identity.measured(identity.ClientsWord(), kinds, 12, identity.Now(), 0)
    assert found == {"joined": 0, "split": 12, "swapped": 0}


def test_its_result_file_has_a_row_of_ours(identity: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "identity.json"
    monkeypatch.setattr(sys, "argv", ["identity.py", "--conversations", "4", "--seeds", "1", "--out", str(out)])
    identity.main()
    told = json.loads(out.read_text())
    assert told["benchmark"] == "identity" and told["conditions"]["conversations"] == 4
    ours = next(row for row in told["rows"] if row["name"] == "locum")
    assert len(ours["shapes"]) >= 8 and ours["median_us"] > 0
