"""Two processes over gloo, each with its part of the weights, end where one process ends."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from distiller.config import TrainConfig
from distiller.data.dataset import Dataset, build
from distiller.training.launch import train
from router.errors import TrainingError
from router.policy.distillation import OnPolicySettings
from tests.distiller.tiny_student import policy, routing_records, student
from tests.distiller.trainings import killed, weights_of

CONFIG = TrainConfig(
    epochs=2, learning_rate=3e-3, batch_size=16, precision="fp32", device="cpu", threads=1, freeze_embeddings=False,
    weight_decay=0.0,
)  # fmt: skip


CASES: list[dict[str, Any]] = [
    {"packing": True},
    {"precision": "bf16"},
    {"tuning": "lora", "learning_rate": 1e-2},
]
SYSTEM = "w1 w2 w3 w4 w5 w6 w7 w8 w9 w10"


def with_system_prompt(folder: Path) -> Dataset:
    """Rows that begin alike, and some that don't."""
    records = routing_records(120)
    for record in records[::3] + records[1::3]:
        assert record.request is not None
        record.request["messages"].insert(0, {"role": "system", "content": SYSTEM})
    return build(records, policy(), folder)


@pytest.mark.parametrize("how", CASES)
def test_two_processes_learn_what_one_does(tmp_path: Path, how: dict[str, Any]) -> None:
    base, data, config = student(tmp_path / "base"), with_system_prompt(tmp_path / "data"), replace(CONFIG, **how)
    one = train(config, base, data, tmp_path / "one")
    two = train(replace(config, launcher="torchrun", processes=2), base, data, tmp_path / "two")
    assert two.processes == 2 and (two.steps, two.tokens) == (one.steps, one.tokens)
    near = 0.05 if config.precision == "bf16" else 1e-4
    assert two.first_loss == pytest.approx(one.first_loss, rel=near)
    assert two.last_loss == pytest.approx(one.last_loss, rel=near)
    assert two.dev_loss == pytest.approx(one.dev_loss, rel=near)
    ours, theirs = weights_of(tmp_path / "one"), weights_of(tmp_path / "two")
    step = 2**-7  # of bfloat16, in which both were written
    tolerance = 0.02 if config.precision == "bf16" else 1e-3
    assert all(torch.allclose(w, theirs[n], rtol=step, atol=tolerance) for n, w in ours.items())


@pytest.mark.skipif(find_spec("ray") is None, reason="needs the ray extra: pip install 'locum[ray]'")
def test_two_workers_of_a_ray_cluster_learn_what_one_process_does(tmp_path: Path) -> None:
    base, data = student(tmp_path / "base"), with_system_prompt(tmp_path / "data")
    one = train(CONFIG, base, data, tmp_path / "one")
    two = train(replace(CONFIG, launcher="ray", processes=2), base, data, tmp_path / "two")
    assert two.processes == 2 and (two.steps, two.tokens) == (one.steps, one.tokens)
    assert two.last_loss == pytest.approx(one.last_loss, rel=1e-4)
    assert two.dev_loss == pytest.approx(one.dev_loss, rel=1e-4)


def test_two_processes_whose_student_answers_itself_learn_what_one_does(tmp_path: Path) -> None:
    base, data = student(tmp_path / "base"), with_system_prompt(tmp_path / "data")
    sure = train(replace(CONFIG, epochs=20), base, data, tmp_path / "sure").folder  # it draws next to always the same
    teacher = train(replace(CONFIG, epochs=1), base, data, tmp_path / "teacher").folder
    config = replace(CONFIG, method=OnPolicySettings(teacher=str(teacher), share=1.0, max_new_tokens=4))
    one = train(config, sure, data, tmp_path / "one")
    two = train(replace(config, launcher="torchrun", processes=2), sure, data, tmp_path / "two")
    assert two.steps == one.steps
    assert two.first_loss == pytest.approx(one.first_loss, rel=0.05)
    assert two.last_loss == pytest.approx(one.last_loss, rel=0.1) and one.last_loss < one.first_loss / 2


def test_two_processes_whose_starter_was_killed_end_and_go_on_to_the_same_weights(tmp_path: Path) -> None:
    base, data, cut = student(tmp_path / "base"), with_system_prompt(tmp_path / "data"), tmp_path / "cut"
    config = replace(CONFIG, epochs=4, launcher="torchrun", processes=2, checkpoint_steps=2)
    killed(config, base, data, cut, after=6)
    assert not cut.exists() and (tmp_path / "cut.checkpoint").is_dir()
    resumed, whole = (train(config, base, data, tmp_path / out) for out in ("cut", "whole"))
    assert resumed.resumed and not whole.resumed
    assert (resumed.steps, resumed.tokens, resumed.last_loss) == (whole.steps, whole.tokens, whole.last_loss)
    ours = weights_of(cut)
    assert all(torch.equal(w, ours[name]) for name, w in weights_of(tmp_path / "whole").items())


def test_a_process_that_fails_fails_the_run(tmp_path: Path) -> None:
    base, data = student(tmp_path / "base"), with_system_prompt(tmp_path / "data")
    with pytest.raises(TrainingError, match="training in 2 processes failed"):
        train(replace(CONFIG, launcher="torchrun", processes=2, max_tokens=4), base, data, tmp_path / "out")
