"""``locum distill train``: what is said on the command line reaches the training, and what is wrong is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from distiller.cli import app
from router.errors import TrainingError
from tests.distiller.tiny_student import dataset, policy, student

FEW = ["--epochs", "2", "--lr", "0.01", "--batch", "16", "--device", "cpu", "--threads", "1", "--move-embeddings"]


def ran(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["train", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_dataset_and_a_student_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where there is no policy
    base, data = student(tmp_path / "base"), dataset(tmp_path / "data")
    said = ran("--dataset", str(data.folder), "--student", str(base), *FEW, "--patience", "2", "--evaluations", "4")
    assert "hard-label, full" in said and "dev loss" in said and "student/loss.png" in said
    report = json.loads((tmp_path / "student" / "report.json").read_bytes())
    assert report["steps"] == len(report["losses"]) and report["dev_loss"] < report["dev_loss_before"]
    assert list(report["dev_losses"]) == [str(s) for s in (4, 7, 10, 13)][: len(report["dev_losses"])]
    assert (tmp_path / "student" / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_not_said_is_as_the_policy_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base, data = student(tmp_path / "base"), dataset(tmp_path / "data")
    distil = {"epochs": 1, "batch_size": 8, "learning_rate": 0.01, "patience": 2}
    file = tmp_path / "policy.yaml"
    file.write_text(yaml.safe_dump(policy().model_dump(mode="json", exclude_none=True) | {"distil": distil}))
    ran("--policy", str(file), "--dataset", str(data.folder), "--student", str(base), "--device", "cpu")
    report = json.loads((tmp_path / "student" / "report.json").read_bytes())
    assert report["steps"] == round(report["rows"] / 8) and report["best_step"] in map(int, report["dev_losses"])


def test_a_methods_settings_are_given_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base, data = student(tmp_path / "base"), dataset(tmp_path / "data")
    where = ["--dataset", str(data.folder), "--student", str(base), *FEW]
    assert "confidence, lora" in ran(*where, "--method", "confidence", "--with", "doubt=0.1", "--tuning", "lora")
    for arguments, told in [
        (["--method", "confidence", "--with", "doubt=2"], "doubt: Input should be less than or equal to 1"),
        (["--method", "soft-label"], "teacher: Field required"),
        (["--method", "magic"], "--method magic: name: .*'hard-label', 'reasoning'"),
        (["--with", "doubt"], "say NAME=VALUE"),
        (["--processes", "2"], "needs --launcher torchrun or ray"),
    ]:
        with pytest.raises(TrainingError, match=told):
            ran(*where, *arguments)


def test_a_tracker_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distiller.training.progress.find_spec", lambda name: None)
    base, data = student(tmp_path / "base"), dataset(tmp_path / "data")
    with pytest.raises(TrainingError, match="tracking with mlflow needs its package: pip install mlflow"):
        ran("--dataset", str(data.folder), "--student", str(base), *FEW, "--track", "mlflow")
