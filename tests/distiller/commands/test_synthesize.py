"""`locum distill synthesize` as a user types it, killed and called again; and within a round."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from distiller.cli import app
from distiller.data.files import read
from distiller.rounds.report import RoundReport
from distiller.rounds.round import run_round
from distiller.synthesis.shelf import kept
from router.contracts.rounds import synthetic_spending, training_costs
from router.errors import LocumError
from router.policy.policy import Policy, load_policy
from router.settings import Settings
from tests.distiller.synthesis.fake_teacher import Teacher, home
from tests.distiller.tiny_student import student
from tests.fakes import Script, served, until

EACH = Decimal("0.00013")


@pytest.fixture
def teacher() -> Iterator[Teacher]:
    upstream = Teacher()
    with served(upstream) as url:
        upstream.url = url
        yield upstream


def environment(settings: Settings) -> dict[str, str]:
    return {"LOCUM_HOME": str(settings.home), "COLUMNS": "160"}


def typed(settings: Settings, file: Path, *more: str) -> Result:
    return CliRunner().invoke(app, ["synthesize", "-p", str(file), *more], env=environment(settings))


def test_a_dry_run_shows_kinds_the_request_and_about_the_cost_and_asks_nobody(teacher: Teacher, tmp_path: Path) -> None:
    policy, settings, file = home(tmp_path, teacher)
    shown = typed(settings, file, "--dry-run", "--per-cluster", "8", "--usd", "2")
    assert shown.exit_code == 0
    assert "kubernetes pod" in shown.output and "failing" in shown.output and "5 of 5" in shown.output
    assert "Write 5 new requests of the same kind" in shown.output
    assert "at most 2 USD" in shown.output
    assert teacher.seen == []
    assert not settings.work(policy.name).exists()


def test_rows_and_money_are_told(teacher: Teacher, tmp_path: Path) -> None:
    policy, settings, file = home(tmp_path, teacher)
    ran = typed(settings, file, "--per-cluster", "8", "--usd", "0.5")
    assert ran.exit_code == 0
    assert f"8 rows for {EACH * len(teacher.seen)} USD" in ran.output
    assert "of 0.5 USD" in ran.output  # the progress, line by line where there is no terminal
    assert len(kept(settings, policy)) == 8


@pytest.mark.parametrize("usd", ["two", "-1", "nan"])
def test_an_amount_that_is_none_is_refused(teacher: Teacher, tmp_path: Path, usd: str) -> None:
    _, settings, file = home(tmp_path, teacher)
    with pytest.raises(LocumError, match="--usd"):
        raise typed(settings, file, "--usd", usd).exception or AssertionError


def test_without_a_budget_nothing_is_asked(teacher: Teacher, tmp_path: Path) -> None:
    _, settings, file = home(tmp_path, teacher)
    with pytest.raises(LocumError, match="say what it may cost"):
        raise typed(settings, file).exception or AssertionError
    assert teacher.seen == []


def test_after_kill_nine_a_run_goes_on_and_no_call_is_made_twice(teacher: Teacher, tmp_path: Path) -> None:
    policy, settings, file = home(tmp_path, teacher)
    usual = teacher.answer

    def hanging(body: dict[str, Any]) -> Script:
        return usual(body) if len(teacher.seen) <= 12 else Script(hang=True)

    teacher.answer = hanging
    command = ["distill", "synthesize", "-p", str(file), "--usd", "0.5", "--per-cluster", "20"]
    run = [sys.executable, "-c", "from router.cli import main; main()", *command]
    env = {**os.environ, **environment(settings)}
    with subprocess.Popen(run, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        until(lambda: len(teacher.seen) > 14 or process.poll() is not None)
        process.send_signal(signal.SIGKILL)
    assert len(teacher.seen) > 14, process.stderr
    before = len(teacher.seen)
    teacher.answer = usual
    done = subprocess.run(run, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(teacher.seen) > before
    bodies = [str(seen.body) for seen in teacher.seen]
    assert len(bodies) == len(set(bodies))
    (spent,) = synthetic_spending(settings.work(policy.name))
    assert spent["out"]["under way when an earlier run was killed"] >= before - 12
    assert EACH * len(bodies) <= Decimal(spent["cost_usd"]) <= Decimal("0.5")  # what was under way counts as paid
    assert len(kept(settings, policy)) == sum(spent["kept"].values()) > 0


def a_round(teacher: Teacher, folder: Path) -> tuple[RoundReport, Policy, Settings]:
    """A round whose training finds no row short enough, so that it ends once its dataset is there."""
    policy, settings, file = home(
        folder, teacher, distil={"synthetic": {"usd": 0.5, "per_cluster": 8}, "max_tokens": 1}
    )
    values = yaml.safe_load(file.read_text())
    values["student"]["model"] = str(student(folder / "tiny"))
    file.write_text(yaml.safe_dump(values))
    policy = load_policy(file)
    settings = Settings(home=settings.home, cache=Settings.from_env().cache)
    return run_round(policy, settings, keep_work=True), policy, settings


def test_a_round_has_weak_kinds_written_for_and_its_cost_holds_that(teacher: Teacher, tmp_path: Path) -> None:
    report, policy, settings = a_round(teacher, tmp_path)
    assert "nothing was trained" in report.reasons[0]
    assert Decimal(report.cost_usd) == Decimal(report.paid_usd) == EACH * len(teacher.seen) > 0
    (work,) = (path for path in settings.work(policy.name).iterdir() if (path / "dataset").is_dir())
    assert sum(row.synthetic for row in read(work / "dataset" / "train.parquet")) == 8
    costs = [usd for _, usd in training_costs(settings.bundles(policy.name), settings.work(policy.name))]
    assert costs == [Decimal(report.cost_usd)]  # once


def test_a_round_that_may_not_train_on_the_teacher_asks_it_nothing(teacher: Teacher, tmp_path: Path) -> None:
    _, settings, file = home(tmp_path, teacher, distil={"synthetic": {"usd": 0.5}})
    values = yaml.safe_load(file.read_text())
    values["teacher"]["training_rights"] = "forbidden"
    file.write_text(yaml.safe_dump(values))
    report = run_round(load_policy(file), settings)
    assert "may not be trained on" in report.reasons[0]
    assert teacher.seen == []
