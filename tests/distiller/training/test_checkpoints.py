"""A run killed outright goes on and ends as if it had not been: early stop and the method's own state included."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from distiller.config import TrainConfig
from distiller.data.dataset import Dataset, build, read
from distiller.training.batches import EncodedRow, Pass, encode
from distiller.training.checkpoints import Checkpoint, RunState
from distiller.training.launch import train
from distiller.training.learner import Learner
from distiller.training.loop import read_report
from distiller.training.methods.hard import HardLabel
from distiller.training.outputs import Outputs
from router.engine.template import PromptTemplate
from tests.distiller.tiny_student import TEAMS, dataset, policy, record, student
from tests.distiller.trainings import killed, weights_of

CONFIG = TrainConfig(
    epochs=6, learning_rate=1e-2, batch_size=16, device="cpu", threads=1, freeze_embeddings=False, checkpoint_steps=2
)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_killed_outright_ends_with_the_weights_of_one_that_was_not(tmp_path: Path, precision: Any) -> None:
    base, data = student(tmp_path / "base"), dataset(tmp_path / "data")
    config = replace(CONFIG, precision=precision)
    killed(config, base, data, tmp_path / "cut", after=12)
    assert not (tmp_path / "cut").exists() and (tmp_path / "cut.checkpoint").is_dir()
    resumed, whole = (train(config, base, data, tmp_path / out) for out in ("cut", "whole"))
    assert resumed.resumed and not whole.resumed and read_report(tmp_path / "cut") == resumed
    assert (resumed.steps, resumed.tokens, resumed.last_loss) == (whole.steps, whole.tokens, whole.last_loss)
    ours = weights_of(tmp_path / "cut")
    assert all(torch.equal(w, ours[name]) for name, w in weights_of(tmp_path / "whole").items())
    assert not (tmp_path / "cut.checkpoint").exists()


def noise(folder: Path) -> Dataset:
    """Rows of which nothing generalises."""
    drawn = random.Random(0)
    told = [record(i, f"w{100 + i % 90} w{i % 80}", drawn.choice(TEAMS)) for i in range(80)]
    return build(told, policy(), folder)


def test_a_run_killed_past_its_best_dev_loss_still_ends_there(tmp_path: Path) -> None:
    base, data = student(tmp_path / "base"), noise(tmp_path / "data")
    config = replace(CONFIG, epochs=40, precision="fp32", patience=12, evaluations=40)
    whole = train(config, base, data, tmp_path / "whole")
    assert whole.stopped_early and whole.best_step is not None and whole.best_step + 4 < whole.steps
    killed(config, base, data, tmp_path / "cut", after=whole.best_step + 4)
    resumed = train(config, base, data, tmp_path / "cut")
    assert resumed.resumed
    assert (resumed.steps, resumed.best_step, resumed.dev_loss) == (whole.steps, whole.best_step, whole.dev_loss)
    ours = weights_of(tmp_path / "cut")
    assert all(torch.equal(w, ours[name]) for name, w in weights_of(tmp_path / "whole").items())


def test_the_run_ends_when_the_dev_loss_no_longer_falls_and_keeps_the_best_weights(tmp_path: Path) -> None:
    base, data = student(tmp_path / "base"), noise(tmp_path / "data")
    config = replace(CONFIG, epochs=40, precision="fp32", patience=3, evaluations=40)
    report = train(config, base, data, tmp_path / "out")
    kept = json.loads((tmp_path / "out" / "report.json").read_bytes())
    found = {int(step): loss for step, loss in kept["dev_losses"].items()}
    assert report.stopped_early and report.best_step is not None and max(found) == report.steps
    assert sorted(found).index(report.best_step) == len(found) - 1 - config.patience
    assert report.dev_loss == min(found.values()) == found[report.best_step]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    dev, _ = encode(read(data.dev), PromptTemplate(tokenizer), config.max_tokens)
    written = Learner(config, tmp_path / "out", HardLabel()).loss(dev)
    assert written == pytest.approx(report.dev_loss, abs=0.02)  # rounded to bfloat16 meanwhile


class Drawing(HardLabel):
    """Learns from rows drawn anew in each step, and moves a weight of its own."""

    def __init__(self) -> None:
        object.__setattr__(self, "own", torch.ones(3, requires_grad=True))

    @property
    def parameters(self) -> dict[str, torch.Tensor]:
        return {"own": self.own}  # type: ignore[attr-defined]

    def rows(self, rows: Sequence[EncodedRow], step: int, model: Any) -> Sequence[EncodedRow]:
        return [replace(r, weight=float(torch.rand(()))) for r in rows]

    def loss(self, outputs: Outputs, part: Pass) -> torch.Tensor:
        return super().loss(outputs, part) * self.own.mean()  # type: ignore[attr-defined]


def test_a_methods_own_weights_and_random_draws_go_on_where_they_were(tmp_path: Path) -> None:
    base = student(tmp_path / "base")
    rows = [EncodedRow((1, 5, 20 + i, 2, 1, 6, 8 + i % 3, 2), 6, 1.0) for i in range(8)]
    config = replace(CONFIG, precision="fp32", weight_decay=0.0)

    def made() -> Learner:
        torch.manual_seed(0)
        return Learner(config, base, Drawing())

    whole = made()
    for step in range(4):
        whole.step(rows, 1e-2, step)
    cut = made()
    for step in range(2):
        cut.step(rows, 1e-2, step)
    Checkpoint(tmp_path / "c", "run", 60, None, cut.place).save(RunState(step=2), cut.learning, cut.optimizer)
    torch.manual_seed(99)
    again = made()
    assert Checkpoint(tmp_path / "c", "run", 60, None, cut.place).resume(again.learning, again.optimizer) is not None
    for step in range(2, 4):
        again.step(rows, 1e-2, step)
    assert not torch.equal(whole.learning["method.own"], torch.ones(3))
    assert all(torch.equal(w, again.learning[name]) for name, w in whole.learning.items())
