"""How a step is computed: what is left out, shared or computed again changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from distiller.config import TrainConfig
from distiller.training.attention import suits, written_out
from distiller.training.batches import EncodedRow, idle
from distiller.training.learner import Learner
from distiller.training.methods.hard import HardLabel
from tests.distiller.tiny_student import student
from tests.distiller.training.graded_rows import ROWS, graded

CONFIG = TrainConfig(precision="fp32", device="cpu", threads=1, freeze_embeddings=False)


def test_an_idle_pass_adds_nothing(tmp_path: Path) -> None:
    learner = Learner(CONFIG, student(tmp_path), HardLabel())
    for shared in (False, True):
        part = idle(ROWS[0], "cpu", shared)
        assert (part.prefix is not None) == shared
        loss, grads = graded(learner, [part])
        assert loss == 0 and all(not g.any() for g in grads.values())


def test_a_model_with_a_window_is_not_packed(tmp_path: Path) -> None:
    model = Learner(CONFIG, student(tmp_path), HardLabel()).model
    assert suits(model)
    model.config.layer_types = ["sliding_attention", "full_attention"]
    assert not suits(model)


def test_activations_computed_twice_change_no_gradient(tmp_path: Path) -> None:
    rows = [EncodedRow((*range(20), 50 + i, 60 + i), 21, 1.0) for i in range(6)]
    moved = []
    for again in (False, True):
        learner = Learner(replace(CONFIG, activation_checkpointing=again), student(tmp_path), HardLabel())
        loss = learner.step(rows, 1e-3, 0)
        moved.append((loss, [w.detach().clone() for w in learner.weights.values()]))
    assert moved[0][0] == pytest.approx(moved[1][0], rel=1e-5)
    assert all(torch.allclose(a, b, atol=2e-4) for a, b in zip(moved[0][1], moved[1][1], strict=True))


@pytest.mark.parametrize("kind", ["all before", "with a beginning", "by row"])
def test_attention_written_out_is_torchs_own(kind: str) -> None:
    torch.manual_seed(0)
    seen = 9 if kind == "with a beginning" else 6
    query = torch.randn(2, 4, 6, 8, requires_grad=True)
    key, value = (torch.randn(2, 2, seen, 8, requires_grad=True) for _ in range(2))
    mask = torch.ones(6, seen, dtype=torch.bool).tril(seen - 6).expand(2, 1, 6, seen)
    if kind == "by row":
        mask = mask & (torch.arange(seen) >= torch.tensor([0, 2])[:, None])[:, None, None] | torch.eye(
            6, dtype=torch.bool
        )
    states = (query, key, value)
    ours = written_out(states, None if kind == "all before" else mask, 0.3)
    theirs = torch.nn.functional.scaled_dot_product_attention(*states, attn_mask=mask, scale=0.3, enable_gqa=True)
    assert torch.allclose(ours, theirs.transpose(1, 2), atol=1e-6)
    down = torch.randn_like(ours)
    for one, other in zip(
        torch.autograd.grad(ours, states, down), torch.autograd.grad(theirs.transpose(1, 2), states, down), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-5)
