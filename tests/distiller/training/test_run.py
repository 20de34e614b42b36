"""A student with the mean of several trainings' weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from distiller.config import TrainConfig
from distiller.training import run
from distiller.training.launch import train
from distiller.training.loop import read_report
from distiller.training.run import trained
from router.policy.distillation import ProgressiveSettings
from tests.distiller.tiny_student import dataset, policy, student
from tests.distiller.trainings import cut_in_second_training, weights_of

CONFIG = TrainConfig(epochs=2, learning_rate=3e-3, batch_size=16, device="cpu", threads=1, soup=2, seed=5)


def test_its_weights_are_the_mean_and_its_report_counts_all(tmp_path: Path) -> None:
    base, data = student(tmp_path / "base"), dataset(tmp_path / "data", 60)
    alone = [train(replace(CONFIG, soup=1, seed=seed), base, data, tmp_path / f"{seed}") for seed in (5, 6)]
    report = trained(CONFIG, base, data, tmp_path / "out")
    one, other, mean = (weights_of(folder) for folder in (alone[0].folder, alone[1].folder, report.folder))
    assert any(not torch.equal(w, other[n]) for n, w in one.items())
    for name, weight in mean.items():
        assert torch.equal(weight, ((one[name] + other[name]) / 2).to(torch.bfloat16).float()), name
    assert AutoModelForCausalLM.from_pretrained(report.folder, dtype="auto").dtype == torch.bfloat16
    assert (report.steps, report.tokens) == (2 * alone[0].steps, sum(r.tokens for r in alone))
    assert report.dev_loss is None and report.last_loss == alone[1].last_loss
    assert read_report(tmp_path / "out") == report
    assert {p.name for p in tmp_path.iterdir()} == {"base", "data", "5", "6", "out"}


def test_one_that_was_cut_off_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, data = student(tmp_path / "base"), dataset(tmp_path / "data", 60)
    whole = trained(CONFIG, base, data, tmp_path / "whole")
    runs = cut_in_second_training(monkeypatch, run)
    with pytest.raises(KeyboardInterrupt):
        trained(CONFIG, base, data, tmp_path / "out")
    again = trained(CONFIG, base, data, tmp_path / "out")
    assert runs == ["1-of-2", "2-of-2", "2-of-2"]
    assert again.steps == whole.steps
    theirs = weights_of(whole.folder)
    assert all(torch.equal(w, theirs[name]) for name, w in weights_of(again.folder).items())


def test_each_of_several_may_be_a_chain(tmp_path: Path) -> None:
    base, data = student(tmp_path / "base"), dataset(tmp_path / "data", 60)
    one = trained(replace(CONFIG, soup=1, method=ProgressiveSettings(layers=(2, 1))), base, data, tmp_path / "one")
    two = trained(replace(CONFIG, method=ProgressiveSettings(layers=(2, 1))), base, data, tmp_path / "two")
    assert two.steps == 2 * one.steps
    assert AutoModelForCausalLM.from_pretrained(two.folder).config.num_hidden_layers == 1


def test_a_policy_asks_for_it() -> None:
    asked = policy().model_copy(update={"distil": policy().distil.model_copy(update={"soup": 3})})
    assert TrainConfig.from_policy(asked).soup == 3
