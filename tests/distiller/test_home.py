"""A round's work folder: finished stages are kept, another round starts afresh, and one runs at a time."""

from __future__ import annotations

import stat
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from distiller.home import RoundKind, RoundRunning, Work, one_round_at_a_time, remember, unfinished
from router.contracts.rounds import history, training_costs
from router.settings import Settings

KEY = {"kind": "train", "parent": None, "policy": "v1", "seed": 0}


def test_a_finished_stage_is_not_done_again_after_a_kill(tmp_path: Path) -> None:
    done: list[str] = []

    def stage(name: str) -> Any:
        def do() -> dict[str, Any]:
            done.append(name)
            if name == "export":
                raise KeyboardInterrupt
            return {"name": name}

        return do

    work = Work.open(tmp_path, KEY)
    work.stage("train", stage("train"))
    with pytest.raises(KeyboardInterrupt):
        work.stage("export", stage("export"))
    again = Work.open(tmp_path, KEY)
    assert again.resumed
    assert again.stage("train", stage("train")) == {"name": "train"}
    assert done == ["train", "export"]
    assert set(again.seconds) == {"train"}


def test_what_a_round_leaves_is_its_owners_alone(tmp_path: Path) -> None:
    work = Work.open(tmp_path / "home", KEY)

    def train() -> dict[str, Any]:
        (work.folder / "student").mkdir(mode=0o755)
        (work.folder / "student" / "weights").write_text("")
        return {}

    work.stage("train", train)
    remember(tmp_path / "home", {})
    found = (tmp_path / "home").rglob("*")
    assert {stat.S_IMODE(p.stat().st_mode) for p in found} == {0o600, 0o700}


@pytest.mark.parametrize("change", [{"kind": "calibrate"}, {"parent": "b"}, {"policy": "v2"}, {"seed": 1}])
def test_what_makes_it_another_round_starts_afresh(tmp_path: Path, change: dict[str, Any]) -> None:
    Work.open(tmp_path, KEY).stage("train", dict)
    again = Work.open(tmp_path, KEY | change)
    assert not again.resumed
    assert list(again.folder.glob("stage-*")) == []


def test_a_finished_round_leaves_nothing_to_go_on_with(tmp_path: Path) -> None:
    work = Work.open(tmp_path, KEY)
    assert unfinished(tmp_path) is RoundKind.TRAIN
    assert work.finish(keep=False) is None
    assert unfinished(tmp_path) is None
    assert not Work.open(tmp_path, KEY).resumed


def test_the_work_is_kept_where_asked(tmp_path: Path) -> None:
    work = Work.open(tmp_path, KEY)
    (work.folder / "answers.jsonl").write_text("x")
    kept = work.finish(keep=True)
    assert kept is not None
    assert (kept / "answers.jsonl").read_text() == "x"
    assert unfinished(tmp_path) is None


def test_rounds_are_remembered_in_order(tmp_path: Path) -> None:
    assert history(tmp_path) == []
    remember(tmp_path / "p", {"kind": "train", "n": 1})
    remember(tmp_path / "p", {"kind": "calibrate", "n": 2})
    assert [r["n"] for r in history(tmp_path / "p")] == [1, 2]


def test_one_round_runs_at_a_time_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    code = (
        "import sys, pathlib; from distiller.home import one_round_at_a_time\n"
        "from router.settings import Settings\n"
        f"with one_round_at_a_time(Settings(home=pathlib.Path({str(tmp_path)!r}))):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(RoundRunning), one_round_at_a_time(settings):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with one_round_at_a_time(settings):
        pass


def usd(seconds: float, paid: Decimal) -> Decimal:
    return Decimal(str(seconds)) + paid


def test_a_killed_round_costs_all_its_seconds_when_it_goes_on_and_when_it_never_does(tmp_path: Path) -> None:
    def costs() -> list[Decimal]:
        return [cost for _, cost in training_costs(tmp_path / "bundles", tmp_path)]

    killed = Work.open(tmp_path, KEY)
    with pytest.raises(KeyboardInterrupt), killed.clocked(usd):
        killed.stage("evaluate-judged", lambda: {"usd": "7"})
        raise KeyboardInterrupt
    (so_far,) = costs()
    assert so_far > 7
    again = Work.open(tmp_path, KEY)
    assert again.resumed and again.elapsed >= float(so_far - 7)
    with again.clocked(usd):
        again.stage("train", dict)
    assert sum(again.all_seconds.values()) == pytest.approx(again.elapsed, abs=0.1)
    (now,) = costs()
    assert now >= so_far
    Work.open(tmp_path, KEY | {"seed": 1})
    assert costs() == [now]  # abandoned
    assert history(tmp_path) == []
